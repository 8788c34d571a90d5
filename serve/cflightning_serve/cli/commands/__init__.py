"""The commands, one module each; ``find_commands`` collects their constants ``COMMAND``."""

from importlib import import_module
from pkgutil import iter_modules

from cflightning_serve.cli.command import Command


def find_commands() -> list[Command]:
    """Return the commands of all modules in this folder, by name."""
    modules = (import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__))
    return sorted((module.COMMAND for module in modules), key=lambda command: command.name)
