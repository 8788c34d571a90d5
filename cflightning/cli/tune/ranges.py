"""Ranges: options with several possible values."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from cflightning.errors import ConfigError
from cflightning.objectives.settings import SearchRange

RANGE_KEYS = {"low", "high", "choices"}
"""A mapping with one of these keys is a range."""
Value = int | float | str
"""A value of a trial; a text is the JSON of a choice."""


class Choices(NamedTuple):
    """One of several values.

    Attributes:
        texts: The values as JSON, in which values of all types are distinct and can be stored.
    """

    texts: tuple[str, ...]

    def __str__(self) -> str:
        return " | ".join(map(display_choice, self.texts))


Range = SearchRange | Choices


def make_range(name: str, node: Mapping[str, object]) -> Range:
    """Make a range from its description.

    Args:
        name: Name of the option, for messages.
        node: `low` and `high`, optionally `log` or `step`; or `choices`.

    Raises:
        ConfigError: The description is wrong.
    """
    if "choices" in node:
        values = node["choices"]
        if set(node) != {"choices"} or not isinstance(values, list) or not values:
            raise ConfigError(
                f"--{name}: choices must be a list of at least one value and stand alone, got {dict(node)}"
            )
        texts = tuple(dict.fromkeys(json.dumps(value, ensure_ascii=False, default=str) for value in values))
        return Choices(texts)
    unknown = sorted(map(str, set(node) - {"low", "high", "log", "step"}))
    if unknown:
        raise ConfigError(f"--{name}: a range has low, high, log, step or choices, got {', '.join(unknown)}")
    low, high = _number(name, node, "low"), _number(name, node, "high")
    step = None if node.get("step") is None else _number(name, node, "step")
    log = node.get("log")
    if not isinstance(log, bool | None):
        raise ConfigError(f"--{name}: log must be true or false, got {log!r}")
    if not low < high:
        raise ConfigError(f"--{name}: low must be below high, got {low:g} and {high:g}")
    if log and low <= 0:
        raise ConfigError(f"--{name}: low must be above 0 with log, got {low:g}")
    if step is not None:
        steps = (high - low) / step if step > 0 else 0
        if log or steps < 1 or abs(steps - round(steps)) > 1e-9 * steps:
            raise ConfigError(
                f"--{name}: step must divide high - low and stands without log, got step {step:g} "
                f"from {low:g} to {high:g}{' with log' if log else ''}"
            )
    if not all(isinstance(value, int) for value in (low, high, *([] if step is None else [step]))):
        low, high = float(low), float(high)
    return SearchRange(low, high, bool(log), step)


def _number(name: str, node: Mapping[str, object], key: str) -> float:
    value = node.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ConfigError(f"--{name}: {key} must be a number, got {value!r}")
    return value


def display_choice(text: str) -> str:
    """Return a choice as a user would type it."""
    return str(value) if isinstance(value := json.loads(text), str) else text


def as_argument(value: Value) -> str:
    """Return a value as an argument of the command line."""
    return display_choice(value) if isinstance(value, str) else repr(value)


def samples(ranges: Mapping[str, Range]) -> Iterator[dict[str, Value]]:
    """Yield the ends of ranges and every choice, to check whether `fit` accepts them.

    Args:
        ranges: Option -> range.

    Yields:
        Option -> value, for all options; each value at least once.
    """
    values: dict[str, Sequence[Value]] = {
        name: option_range.texts if isinstance(option_range, Choices) else (option_range.low, option_range.high)
        for name, option_range in ranges.items()
    }
    for index in range(max(map(len, values.values()), default=0)):
        yield {name: several[index % len(several)] for name, several in values.items()}


def set_option(settings: dict[str, Any], name: str, value: Value) -> None:
    """Set an option in a configuration of `fit`.

    Args:
        settings: The configuration; changed in place.
        name: Name of the option.
        value: Value of a trial.
    """
    *path, last = name.split(".")
    for part in path:
        settings = settings.setdefault(part, {})
        if "class_path" in settings:
            settings = settings.setdefault("init_args", {})
    settings[last] = json.loads(value) if isinstance(value, str) else value
