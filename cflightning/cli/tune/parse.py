"""What the user has typed, with the ranges taken out, and the YAML of it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from cflightning.cli.tune.ranges import MARKS, Range, make_range
from cflightning.errors import ConfigError

SAME_ROWS = (
    "data.", "trainer.limit_val_batches", "trainer.overfit_batches", "trainer.fast_dev_run", "trainer.devices",
    "trainer.default_root_dir", "checkpoint.", "last_checkpoint.", "ckpt_path",
)  # fmt: skip
"""Beginnings of options that must not differ from trial to trial: they say what is measured, and where it goes."""
EXEMPT = "data.batch_size"


class Asked(NamedTuple):
    """What the user has typed, taken apart.

    Attributes:
        args: options for fit, without the ranges.
        ranges: option -> range; `model.dim` for `--model.dim`, and for `model: {init_args: {dim: …}}` in a file.
        given: options that have a value.
    """

    args: list[str]
    ranges: dict[str, Range]
    given: frozenset[str]


def read(args: Sequence[str]) -> Asked:
    """Take the ranges out of options of fit; as with fit, what comes later holds.

    Args:
        args: command-line arguments; the files of --config are read.

    Raises:
        ConfigError: a bad range, or one where none can be.
    """
    ranges: dict[str, Range] = {}
    given: set[str] = set()
    left: list[str] = []
    waiting = iter(enumerate(args))
    for at, arg in waiting:
        name, equals, value = arg.partition("=")
        if not name.startswith("-"):
            left.append(arg)
            continue
        config = name in ("--config", "-c")
        following = args[at + 1] if at + 1 < len(args) else ""
        if not equals and (config or following.lstrip().startswith("{")):
            equals, value = "=", following
            next(waiting, None)
        path = () if config else tuple(name.lstrip("-").split("."))
        content = _load(value, file=config)
        if not isinstance(content, dict):
            rest = content
            if not config:
                _note(path, ranges, given)
        else:
            rest = _take_out(content, path, ranges, given)
        if rest == content:
            left.append(f"{name}{equals}{value}")
        elif rest:
            text = yaml.dump(rest, Dumper=_Dumper, default_flow_style=True, width=math.inf, sort_keys=False)
            left.append(f"{name}={text.strip()}")
    for name in ranges:
        if name.startswith(SAME_ROWS) and name != EXEMPT:
            raise ConfigError(
                f"--{name}: must be a value, got a range; trials can only be compared on the same rows, "
                "measured alike (of the data, --data.batch_size alone may be a range)"
            )
    return Asked(left, ranges, frozenset(given))


def _load(text: str, file: bool) -> Any:
    """The content of a file or of an option; None where it is not for us to judge."""
    where = "the command line"
    try:
        if file and not text.lstrip().startswith("{"):
            where = text
            text = Path(text).read_text(encoding="utf-8")
        elif not text.lstrip().startswith("{"):
            return None
        return yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except (OSError, ValueError):  # fit says so better
        return None
    except yaml.YAMLError as error:
        if not file and not MARKS & set(re.findall(r"\w+", text)):
            return None
        raise ConfigError(f"{where}: must be YAML, got {' '.join(str(error).split())}") from error


def _take_out(node: Any, path: tuple[str, ...], ranges: dict[str, Range], given: set[str]) -> Any:
    """The same without ranges, and without what held nothing else."""
    if isinstance(node, list):
        if any(_holds_range(part) for part in node):
            raise ConfigError(
                f"--{_name(path)}: must hold no range inside a list; give choices of whole lists, "
                "such as {choices: [[100, 50], [50]]}"
            )
    elif isinstance(node, dict) and MARKS & set(node):
        name = _name(path)
        ranges.pop(name, None)  # its place is that of the last
        ranges[name] = make_range(name, node)
        given.discard(name)
        return None
    elif isinstance(node, dict) and node:
        rest = {}
        for key, part in node.items():
            kept = _take_out(part, (*path, str(key)), ranges, given)
            if kept is not None or part is None:
                rest[key] = kept
        return rest or None
    _note(path, ranges, given)
    return node


def _holds_range(node: Any) -> bool:
    parts = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return (isinstance(node, dict) and bool(MARKS & set(node))) or any(map(_holds_range, parts))


def _note(path: tuple[str, ...], ranges: dict[str, Range], given: set[str]) -> None:
    ranges.pop(_name(path), None)
    given.add(_name(path))


def _name(path: Sequence[str]) -> str:
    return ".".join(part for part in path if part != "init_args")


def dump(settings: Mapping[str, Any]) -> str:
    """A config as YAML."""
    text: str = yaml.dump(dict(settings), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


class _Loader(yaml.SafeLoader):
    """Reads 1e-3 as a number, as fit's own does; YAML 1.1 wants 1.0e-3."""


class _Dumper(yaml.SafeDumper):
    """Quotes what that would read as a number."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
    )
