"""Help of the data options on two screens, from the docstrings of the data module and its groups of options."""

from __future__ import annotations

import dataclasses
import inspect
import shutil
import textwrap
from collections.abc import Iterator
from typing import Literal, get_args, get_origin, get_type_hints

from docstring_parser import parse

from cflightning.data.datamodule import RatingsDataModule

HELP_COLUMN = 33
"""Column where the text of an option begins."""


def data_help() -> str:
    """Return the help of the data options, in groups."""
    width = min(max(shutil.get_terminal_size((100, 24)).columns, 80), 120)
    return "\n".join(_class_help(RatingsDataModule, "data", width)) + "\n"


def _class_help(kind: type, group: str, width: int) -> Iterator[str]:
    """Iterate over the lines of the help of a class, whose docstring documents its arguments.

    Arguments whose default is a dataclass are groups of options.

    Args:
        kind: The class.
        group: Name of the options on the command line, without dashes.
        width: Characters of a line.
    """
    documentation = parse(kind.__doc__ or "")
    types = get_type_hints(kind if dataclasses.is_dataclass(kind) else kind.__init__)  # type: ignore[misc]
    texts = {entry.arg_name: " ".join((entry.description or "").split()) for entry in documentation.params}
    yield f"{documentation.short_description}"
    groups: list[tuple[type, str]] = []
    for name, parameter in inspect.signature(kind).parameters.items():
        if dataclasses.is_dataclass(parameter.default):
            groups.append((type(parameter.default), f"{group}.{name}"))
            continue
        choices = [choice for part in (types[name], *get_args(types[name])) if get_origin(part) is Literal
                   for choice in get_args(part)]  # fmt: skip
        default = "" if parameter.default is None else f" [{parameter.default}]"
        listed = f" ({', '.join(choices)})" if choices and not all(choice in texts[name] for choice in choices) else ""
        option = f"  --{group}.{name} ".ljust(HELP_COLUMN)
        indent = " " * HELP_COLUMN
        text = f"{option}{texts[name]}{listed}{default}"
        yield from textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False)
    for options, name in groups:
        yield ""
        yield from _class_help(options, name, width)
