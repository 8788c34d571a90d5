"""Command-line arguments of a search: ranges are separated from plain values, in options and in YAML files."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from cflightning.cli.tune.ranges import RANGE_KEYS, Range, make_range
from cflightning.errors import ConfigError

FIXED = (
    "data.", "trainer.limit_val_batches", "trainer.overfit_batches", "trainer.fast_dev_run", "trainer.devices",
    "trainer.default_root_dir", "checkpoint.", "last_checkpoint.", "ckpt_path",
)  # fmt: skip
"""Prefixes of options that must be equal in all trials: the rows and the measurement, and the folders."""
NOT_FIXED = "data.batch_size"
"""An option with such a prefix that can differ."""


class ParsedArgs(NamedTuple):
    """Arguments of the user, separated.

    Attributes:
        fit_args: Options of `fit`, without the ranges.
        ranges: Option -> range; `model.dim` for `--model.dim` and for `model: {init_args: {dim: …}}` in a file.
        with_value: Options that have a plain value.
    """

    fit_args: list[str]
    ranges: dict[str, Range]
    with_value: frozenset[str]


def parse_ranges(args: Sequence[str]) -> ParsedArgs:
    """Separate the ranges from the options of `fit`; of repeated options, the last one counts.

    Args:
        args: Command-line arguments; the files of --config are read.

    Raises:
        ConfigError: A range is wrong, or the option cannot have one.
    """
    ranges: dict[str, Range] = {}
    with_value: set[str] = set()
    fit_args: list[str] = []
    remaining = iter(enumerate(args))
    for index, arg in remaining:
        name, equals, value = arg.partition("=")
        if not name.startswith("-"):
            fit_args.append(arg)
            continue
        config = name in ("--config", "-c")
        following = args[index + 1] if index + 1 < len(args) else ""
        if not equals and (config or following.lstrip().startswith("{")):
            equals, value = "=", following
            next(remaining, None)
        path = () if config else tuple(name.lstrip("-").split("."))
        content = _load(value, file=config)
        if not isinstance(content, dict):
            rest = content
            if not config:
                _add_value(path, ranges, with_value)
        else:
            rest = _remove_ranges(content, path, ranges, with_value)
        if rest == content:
            fit_args.append(f"{name}{equals}{value}")
        elif rest:
            text = yaml.dump(rest, Dumper=_Dumper, default_flow_style=True, width=math.inf, sort_keys=False)
            fit_args.append(f"{name}={text.strip()}")
    for name in ranges:
        if name.startswith(FIXED) and name != NOT_FIXED:
            raise ConfigError(
                f"--{name}: must be a value, got a range; trials can only be compared on the same rows, "
                "measured alike (of the data, --data.batch_size alone may be a range)"
            )
    return ParsedArgs(fit_args, ranges, frozenset(with_value))


def _load(text: str, file: bool) -> object:
    """Return the content of a file or an option; None if it has no mapping, or an error that `fit` reports."""
    where = "the command line"
    try:
        if file and not text.lstrip().startswith("{"):
            where = text
            text = Path(text).read_text(encoding="utf-8")
        elif not text.lstrip().startswith("{"):
            return None
        return yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except (OSError, ValueError):  # `fit` has a better message
        return None
    except yaml.YAMLError as error:
        if not file and not RANGE_KEYS & set(re.findall(r"\w+", text)):
            return None
        raise ConfigError(f"{where}: must be YAML, got {' '.join(str(error).split())}") from error


def _remove_ranges(node: object, path: tuple[str, ...], ranges: dict[str, Range], with_value: set[str]) -> object:
    """Return a node without ranges and without mappings that held nothing else; collect ranges and plain values."""
    if isinstance(node, list):
        if any(_holds_range(part) for part in node):
            raise ConfigError(
                f"--{_name(path)}: must hold no range inside a list; give choices of whole lists, "
                "such as {choices: [[100, 50], [50]]}"
            )
    elif isinstance(node, dict) and RANGE_KEYS & set(node):
        name = _name(path)
        ranges.pop(name, None)  # the order is that of the last mention
        ranges[name] = make_range(name, node)
        with_value.discard(name)
        return None
    elif isinstance(node, dict) and node:
        rest = {}
        for key, part in node.items():
            kept = _remove_ranges(part, (*path, str(key)), ranges, with_value)
            if kept is not None or part is None:
                rest[key] = kept
        return rest or None
    _add_value(path, ranges, with_value)
    return node


def _holds_range(node: object) -> bool:
    parts = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return (isinstance(node, dict) and bool(RANGE_KEYS & set(node))) or any(map(_holds_range, parts))


def _add_value(path: tuple[str, ...], ranges: dict[str, Range], with_value: set[str]) -> None:
    ranges.pop(_name(path), None)
    with_value.add(_name(path))


def _name(path: Sequence[str]) -> str:
    return ".".join(part for part in path if part != "init_args")


def dump(settings: Mapping[str, object]) -> str:
    """Return a configuration as YAML."""
    text: str = yaml.dump(dict(settings), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


class _Loader(yaml.SafeLoader):
    """Reads 1e-3 as a number, as the loader of `fit` does; YAML 1.1 requires 1.0e-3."""


class _Dumper(yaml.SafeDumper):
    """Quotes texts that `_Loader` would read as numbers."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
    )
