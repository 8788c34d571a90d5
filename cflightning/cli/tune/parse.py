"""Command-line arguments of a search: ranges are separated from plain values, in options and in YAML files."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from jsonargparse import get_loader

from cflightning.cli.tune.ranges import RANGE_KEYS, Range, make_range
from cflightning.errors import ConfigError

FIXED = (
    "data.", "trainer.limit_val_batches", "trainer.overfit_batches", "trainer.fast_dev_run", "trainer.devices",
    "trainer.default_root_dir", "checkpoint.", "last_checkpoint.", "ckpt_path",
)  # fmt: skip
"""Prefixes of options that must be equal in all trials: the rows and the measurement, and the folders."""
NOT_FIXED = "data.batch_size"
"""An option with such a prefix that can differ."""


@dataclass
class ParsedArgs:
    """Arguments of the user, separated.

    Attributes:
        fit_args: Options of `fit`, without the ranges.
        ranges: Option -> range; `model.dim` for `--model.dim` and for `model: {init_args: {dim: …}}` in a file.
        with_value: Options that have a plain value.
    """

    fit_args: list[str] = field(default_factory=list)
    ranges: dict[str, Range] = field(default_factory=dict)
    with_value: set[str] = field(default_factory=set)

    def add_value(self, name: str) -> None:
        """Note that an option has a value, which replaces an earlier range."""
        self.ranges.pop(name, None)
        self.with_value.add(name)

    def add_range(self, name: str, node: Mapping[str, object]) -> None:
        """Add a range, which replaces an earlier one or a value."""
        self.ranges.pop(name, None)  # the order is that of the last mention
        self.ranges[name] = make_range(name, node)
        self.with_value.discard(name)


def parse_ranges(args: Sequence[str]) -> ParsedArgs:
    """Separate the ranges from the options of `fit`; of repeated options, the last one counts.

    Args:
        args: Command-line arguments; the files of --config are read.

    Raises:
        ConfigError: A range is wrong, or the option cannot have one.
    """
    parsed = ParsedArgs()
    remaining = [*args]
    while remaining:
        arg = remaining.pop(0)
        name, equals, value = arg.partition("=")
        if not name.startswith("-"):
            parsed.fit_args.append(arg)
            continue
        is_file = name in ("--config", "-c")
        if not equals and remaining and (is_file or remaining[0].lstrip().startswith("{")):
            equals, value = "=", remaining.pop(0)
        path = () if is_file else tuple(name.lstrip("-").split("."))
        content = rest = _load(value, is_file)
        if isinstance(content, dict):
            rest = _remove_ranges(content, path, parsed)
        elif not is_file:
            parsed.add_value(_name(path))
        if rest == content:
            parsed.fit_args.append(f"{name}{equals}{value}")
        elif rest:
            text = yaml.dump(rest, Dumper=_Dumper, default_flow_style=True, width=math.inf, sort_keys=False)
            parsed.fit_args.append(f"{name}={text.strip()}")
    for name in parsed.ranges:
        if name.startswith(FIXED) and name != NOT_FIXED:
            raise ConfigError(
                f"--{name}: must be a value, got a range; trials can only be compared on the same rows, "
                "measured alike (of the data, --data.batch_size alone may be a range)"
            )
    return parsed


def _load(text: str, is_file: bool) -> object:
    """Return the content of a file or an option; None if it has no mapping, or an error that `fit` reports."""
    where = "the command line"
    try:
        if not text.lstrip().startswith("{"):
            if not is_file:
                return None
            where = text
            text = Path(text).read_text(encoding="utf-8")
        return get_loader("yaml")(text)
    except (OSError, ValueError):  # `fit` has a better message
        return None
    except yaml.YAMLError as error:
        if not is_file and not RANGE_KEYS & set(re.findall(r"\w+", text)):
            return None
        raise ConfigError(f"{where}: must be YAML, got {' '.join(str(error).split())}") from error


def _remove_ranges(node: object, path: tuple[str, ...], parsed: ParsedArgs) -> object:
    """Return a node without ranges and without mappings that held nothing else; add ranges and plain values."""
    if isinstance(node, dict) and RANGE_KEYS & set(node):
        parsed.add_range(_name(path), node)
        return None
    if isinstance(node, dict) and node:
        rest = {key: _remove_ranges(part, (*path, str(key)), parsed) for key, part in node.items()}
        return {key: part for key, part in rest.items() if part is not None or node[key] is None} or None
    if isinstance(node, list) and any(_holds_range(part) for part in node):
        raise ConfigError(
            f"--{_name(path)}: must hold no range inside a list; give choices of whole lists, "
            "such as {choices: [[100, 50], [50]]}"
        )
    parsed.add_value(_name(path))
    return node


def _holds_range(node: object) -> bool:
    if isinstance(node, dict):
        return not RANGE_KEYS.isdisjoint(node) or any(map(_holds_range, node.values()))
    return isinstance(node, list) and any(map(_holds_range, node))


def _name(path: Sequence[str]) -> str:
    return ".".join(part for part in path if part != "init_args")


def dump(settings: Mapping[str, object]) -> str:
    """Return a configuration as YAML."""
    text: str = yaml.dump(dict(settings), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


class _Dumper(yaml.SafeDumper):
    """Quotes texts that the loader of `fit` reads as numbers, such as 1e3, which is a text in YAML 1.1."""


_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)
