"""Validation of checkpoint contents: no class, file or address in them is trusted."""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

from cflightning.errors import CheckpointError

DESCRIBED = ("optimizer", "lr_scheduler")
"""Settings of a task that describe an object by class and arguments."""
WORD = re.compile(r"[\w@/+ -]{0,200}")
"""Permitted text of a setting: without dots and braces it names no code, file or address."""
WORDED = {"adjust_lr_fn", "anneal_strategy", "line_search_fn", "mode", "monitor", "scale_mode", "threshold_mode"}
"""Arguments of torch's optimisers and schedules that are words. In any other argument, the command line would interpret
a word as the name of a file that describes an object, and import its class."""
DEPTH = 4
"""Maximum nesting of lists and dicts in a setting."""
PATHS = {"best_model_path", "last_model_path", "kth_best_model_path", "best_k_models", "dirpath"}
"""Keys of a callback's state that are paths."""


def check_plain(value: Any, where: str, depth: int = DEPTH) -> None:
    """Reject a setting that does not consist of numbers, booleans, None, words, and lists and dicts of them.

    Args:
        value: Value of the setting.
        where: File and setting, for the message.
        depth: Permitted nesting of lists and dicts.

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
        f"{where}: must be numbers, words and lists of them, got {_short(value)}; was the checkpoint edited?"
    )


def plain_settings(content: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return the task's settings in a checkpoint, plain values only.

    Optimisers and schedules of torch with plain arguments are kept; others, which only the user may name, become None
    (`foreign` lists them).

    Args:
        content: A loaded checkpoint.
        source: Its file, for messages.

    Raises:
        CheckpointError: A setting is not plain.
    """
    given = content.get("hyper_parameters", {})
    if not isinstance(given, dict):
        raise CheckpointError(f"{source}: hyper_parameters: must be settings by name, got {_short(given)}")
    settings = {name: value for name, value in given.items() if isinstance(name, str) and not name.startswith("_")}
    for name, value in settings.items():
        if name not in DESCRIBED:
            check_plain(value, f"{source}: setting {_short(name)}")
        elif value is not None and not _is_torch(value, name):
            settings[name] = None
        elif value is not None:
            arguments = value.get("init_args", {})
            check_plain(arguments, f"{source}: setting {name}")
            for argument, one in arguments.items():
                if argument not in WORDED and any(_texts(one)):
                    raise CheckpointError(
                        f"{source}: setting {name}: {_short(argument)} must be numbers, got {_short(one)}; was the "
                        "checkpoint edited?"
                    )
    return settings


def check_files(settings: Mapping[str, Any], kind: type, source: str) -> None:
    """Reject texts that name an existing file in arguments that accept objects.

    The command line would read from that file which class to import and instantiate.

    Args:
        settings: Result of `plain_settings`.
        kind: Class of the task.
        source: File of the settings, for the message.

    Raises:
        CheckpointError: Names the first of them.
    """
    hints: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        try:
            hints |= get_type_hints(base.__init__)  # type: ignore[misc]
        except (AttributeError, NameError, TypeError):  # a name that is imported for type checkers only
            hints |= dict.fromkeys(getattr(base.__init__, "__annotations__", {}), object)  # type: ignore[misc]
    for name, value in settings.items():
        if name not in DESCRIBED and _may_be_object(hints.get(name, object)):
            for text in filter(os.path.lexists, _texts(value)):
                raise CheckpointError(
                    f"{source}: setting {_short(name)}: must be no file, got {_short(text)}; was the checkpoint edited?"
                )


def foreign(content: Mapping[str, Any]) -> dict[str, str]:
    """Return the optimiser and the schedule of a checkpoint that are not torch's: option -> class."""
    given = content.get("hyper_parameters", {})
    described = {name: given.get(name) for name in DESCRIBED} if isinstance(given, dict) else {}
    return {
        name: _short(value.get("class_path") if isinstance(value, dict) else value)
        for name, value in described.items()
        if value is not None and not _is_torch(value, name)
    }


def check_names(settings: Iterable[str], kind: type, source: str) -> None:
    """Reject settings that a task class does not accept.

    Raises:
        CheckpointError: Names the first of them.
    """
    known: set[str] = set()
    for base in kind.__mro__:
        parameters = inspect.signature(base.__init__).parameters.values()  # type: ignore[misc]
        known.update(one.name for one in parameters if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL))
        if all(one.kind != one.VAR_KEYWORD for one in parameters):
            break
    if unknown := sorted(set(settings) - known):
        raise CheckpointError(
            f"{source}: does not fit {kind.__name__}, without a setting {', '.join(map(_short, unknown[:3]))}; was it "
            "written by another version?"
        )


def _is_torch(description: Any, name: str) -> bool:
    """Return whether a description names torch's optimiser or schedule (or Lightning's plateau), without imports."""
    if not isinstance(description, dict) or not isinstance(path := description.get("class_path"), str):
        return False
    if set(description) - {"class_path", "init_args"} or not isinstance(description.get("init_args", {}), dict):
        return False
    import torch

    module, _, kind = path.rpartition(".")
    if path != "lightning.pytorch.cli.ReduceLROnPlateau" and not f"{module}.".startswith("torch.optim."):
        return False
    found = getattr(sys.modules.get(module), kind, None)
    kinds: tuple[type, ...] = (torch.optim.Optimizer,)
    if name == "lr_scheduler":
        kinds = torch.optim.lr_scheduler.LRScheduler, torch.optim.lr_scheduler.ReduceLROnPlateau
    return isinstance(found, type) and issubclass(found, kinds)


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in a plain value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple | dict):
        for one in (*value, *value.values()) if isinstance(value, dict) else value:
            yield from _texts(one)


def _may_be_object(hint: Any) -> bool:
    """Return whether a type admits more than numbers, texts and containers of them."""
    if hint in (Any, Ellipsis, str, int, float, bool, type(None)) or get_origin(hint) is Literal:
        return False
    inner = get_args(hint)
    return not inner or any(map(_may_be_object, inner))


# Files ---------------------------------------------------------------------------------------------------------------


def own_file(path: Any, folders: Iterable[str]) -> str:
    """Return the checkpoint of a callback's state if it is a file in one of the folders, else an empty text.

    A file elsewhere is replaced by the file of the same name in a folder, for runs that were moved.

    Args:
        path: Path in the state.
        folders: Checkpoint folders of the run.
    """
    if not isinstance(path, str) or not path or "://" in path:
        return ""
    for folder in folders:
        for candidate in (path, os.path.join(folder, os.path.basename(path))):
            if os.path.isfile(candidate) and is_inside(candidate, folder):
                return candidate
    return ""


def is_inside(path: str, folder: str) -> bool:
    """Return whether a path is inside a folder after resolving all links."""
    home = os.path.realpath(folder)
    return os.path.commonpath([os.path.realpath(path), home]) == home


def confine_states(content: dict[str, Any], folders: Iterable[str], source: str | None) -> None:
    """Restrict the paths in the states of callbacks to the run's own checkpoint folders.

    `ModelCheckpoint` tests, deletes and overwrites the files in its state, and downloads addresses.

    Args:
        content: A loaded checkpoint; changed in place.
        folders: Checkpoint folders of the run's callbacks.
        source: The loaded file; if it is in one of the folders, the state belongs to the same run.

    Raises:
        CheckpointError: The states are not a mapping.
    """
    own = list(folders)
    states = content.get("callbacks", {})
    if not isinstance(states, dict):
        raise CheckpointError(f"checkpoint: callbacks: must be states by name, got {_short(states)}; was it edited?")
    at = os.path.dirname(os.path.realpath(source)) if source else ""
    home = next((folder for folder in own if os.path.realpath(folder) == at), "")
    for state in states.values():
        if not isinstance(state, dict) or not PATHS & set(state):
            continue
        kept = state.get("best_k_models")
        kept = {own_file(path, own): score for path, score in kept.items()} if isinstance(kept, dict) else {}
        kept.pop("", None)
        worst = own_file(state.get("kth_best_model_path"), own)
        if state.get("kth_best_model_path") and worst not in kept:
            kept, worst = {}, ""  # Lightning looks it up among them
        state |= {"best_k_models": kept, "kth_best_model_path": worst}
        for name in ("best_model_path", "last_model_path"):
            state[name] = own_file(state.get(name), own)
        if state.get("dirpath") not in own:
            state["dirpath"] = home


def _short(value: Any) -> str:
    shown = value if isinstance(value, str) else type(value).__name__
    return repr(shown[:60])
