"""Checks of the task settings in an untrusted checkpoint: plain data, that cannot name code, a file or an address."""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

from cflightning.errors import CheckpointError
from cflightning.utils.text import quote_untrusted

DESCRIBED = ("optimizer", "lr_scheduler")
"""Settings of a task that describe an object by class and arguments."""
WORD = re.compile(r"[\w@/+ -]{0,200}")
"""A text in a setting; without dots and braces it can name neither code nor a file nor an address."""
TEXT_ARGUMENTS = {
    "adjust_lr_fn", "anneal_strategy", "line_search_fn", "mode", "monitor", "scale_mode", "threshold_mode",
}  # fmt: skip
"""Text arguments of torch's optimisers and schedules. For any other argument the command line would take a text for the
name of a file that describes an object, and import its class."""
MAX_DEPTH = 4
"""Largest depth of nested lists and dicts in a setting."""


def check_plain(value: object, where: str, depth: int = MAX_DEPTH) -> None:
    """Refuse a setting that is not made of numbers, booleans, None, words, and lists and dicts of them.

    Args:
        value: The setting.
        where: File and setting, for the message.
        depth: Largest depth of nested lists and dicts.

    Raises:
        CheckpointError: The value could name code, a file or an address.
    """
    if value is None or isinstance(value, bool | int | float):
        return
    if isinstance(value, str) and WORD.fullmatch(value):
        return
    if depth and isinstance(value, list | tuple):
        for one in value:
            check_plain(one, where, depth - 1)
        return
    if depth and isinstance(value, dict) and "class_path" not in value and all(isinstance(key, str) for key in value):
        for one in (*value, *value.values()):
            check_plain(one, where, depth - 1)
        return
    raise CheckpointError(
        f"{where}: must be numbers, words and lists of them, got {quote_untrusted(value)}; was the checkpoint edited?"
    )


def plain_settings(content: Mapping[str, object], source: str) -> dict[str, Any]:
    """Return the settings of the task in a checkpoint, plain values only.

    An optimiser or schedule of torch with plain arguments is kept; another one, which only the user may name, is None
    (see `foreign_classes`).

    Args:
        content: A loaded checkpoint.
        source: Its file, for messages.

    Raises:
        CheckpointError: A setting is not plain.
    """
    parameters = content.get("hyper_parameters", {})
    if not isinstance(parameters, dict):
        raise CheckpointError(
            f"{source}: hyper_parameters: must be settings by name, got {quote_untrusted(parameters)}"
        )
    settings = {name: value for name, value in parameters.items() if isinstance(name, str) and not name.startswith("_")}
    for name, value in settings.items():
        if name not in DESCRIBED:
            check_plain(value, f"{source}: setting {quote_untrusted(name)}")
        elif value is not None and not _is_of_torch(value, name):
            settings[name] = None
        elif value is not None:
            arguments = value.get("init_args", {})
            check_plain(arguments, f"{source}: setting {name}")
            for argument, one in arguments.items():
                if argument not in TEXT_ARGUMENTS and any(_texts(one)):
                    raise CheckpointError(
                        f"{source}: setting {name}: {quote_untrusted(argument)} must be numbers, "
                        f"got {quote_untrusted(one)}; was the checkpoint edited?"
                    )
    return settings


def check_no_files(settings: Mapping[str, object], kind: type, source: str) -> None:
    """Refuse texts that name an existing file, if the argument of the task can be an object.

    The command line would read the class of the object from that file, and import it.

    Args:
        settings: Result of `plain_settings`.
        kind: Class of the task.
        source: File of the checkpoint, for messages.

    Raises:
        CheckpointError: Names the first such setting.
    """
    hints: dict[str, object] = {}
    for base in reversed(kind.__mro__):
        try:
            hints |= get_type_hints(base.__init__)  # type: ignore[misc]
        except (AttributeError, NameError, TypeError):  # a name that is imported for type checkers alone
            hints |= dict.fromkeys(getattr(base.__init__, "__annotations__", {}), object)  # type: ignore[misc]
    for name, value in settings.items():
        if name not in DESCRIBED and _may_be_object(hints.get(name, object)):
            for text in filter(os.path.lexists, _texts(value)):
                raise CheckpointError(
                    f"{source}: setting {quote_untrusted(name)}: must be no file, got {quote_untrusted(text)}; "
                    "was the checkpoint edited?"
                )


def foreign_classes(content: Mapping[str, object]) -> dict[str, str]:
    """Return the optimiser and the schedule in a checkpoint that are not torch's: option -> class."""
    parameters = content.get("hyper_parameters", {})
    described = {name: parameters.get(name) for name in DESCRIBED} if isinstance(parameters, dict) else {}
    return {
        name: quote_untrusted(value.get("class_path") if isinstance(value, dict) else value)
        for name, value in described.items()
        if value is not None and not _is_of_torch(value, name)
    }


def check_names(settings: Iterable[str], kind: type, source: str) -> None:
    """Refuse settings that are not arguments of the task class.

    Raises:
        CheckpointError: Names the first three of them.
    """
    arguments: set[str] = set()
    for base in kind.__mro__:
        parameters = inspect.signature(base.__init__).parameters.values()  # type: ignore[misc]
        arguments.update(one.name for one in parameters if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL))
        if all(one.kind != one.VAR_KEYWORD for one in parameters):
            break
    if unknown := sorted(set(settings) - arguments):
        raise CheckpointError(
            f"{source}: does not fit {kind.__name__}, without a setting "
            f"{', '.join(map(quote_untrusted, unknown[:3]))}; was it written by another version?"
        )


def _is_of_torch(description: object, name: str) -> bool:
    """Return whether a description names an optimiser or schedule of torch (or Lightning's plateau), without import."""
    if not isinstance(description, dict) or not isinstance(path := description.get("class_path"), str):
        return False
    if set(description) - {"class_path", "init_args"} or not isinstance(description.get("init_args", {}), dict):
        return False
    import torch

    module, _, class_name = path.rpartition(".")
    if path != "lightning.pytorch.cli.ReduceLROnPlateau" and not f"{module}.".startswith("torch.optim."):
        return False
    kind = getattr(sys.modules.get(module), class_name, None)
    bases: tuple[type, ...] = (torch.optim.Optimizer,)
    if name == "lr_scheduler":
        bases = torch.optim.lr_scheduler.LRScheduler, torch.optim.lr_scheduler.ReduceLROnPlateau
    return isinstance(kind, type) and issubclass(kind, bases)


def _texts(value: object) -> Iterator[str]:
    """Yield every text in a plain value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple | dict):
        for one in (*value, *value.values()) if isinstance(value, dict) else value:
            yield from _texts(one)


def _may_be_object(hint: object) -> bool:
    """Return whether a type allows more than numbers, texts and containers of them."""
    if hint in (Any, Ellipsis, str, int, float, bool, type(None)) or get_origin(hint) is Literal:
        return False
    inner = get_args(hint)
    return not inner or any(map(_may_be_object, inner))
