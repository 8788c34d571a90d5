"""Ranges: options that hold several values."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from cflightning.errors import ConfigError

MARKS = {"low", "high", "choices"}
"""A mapping with one of these keys is a range."""


class Numbers(NamedTuple):
    """From `low` to `high`, both included; whole numbers where `low` is an int.

    Attributes:
        low: the least.
        high: the greatest.
        log: whether equal ratios are equally likely, rather than equal differences.
        step: between neighbours; None for any number, or any whole number.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are meant."""
        return isinstance(self.low, int)

    def __str__(self) -> str:
        extra = " (log)" if self.log else f" (step {self.step:g})" if self.step is not None else ""
        return f"{self.low:g} to {self.high:g}{extra}"


class Choices(NamedTuple):
    """One of several values.

    Attributes:
        texts: the values as JSON, so that any of them can be told apart, kept and typed.
    """

    texts: tuple[str, ...]

    def __str__(self) -> str:
        return " | ".join(map(shown, self.texts))


Range = Numbers | Choices


def make_range(name: str, node: Mapping[str, Any]) -> Range:
    """A range from its description.

    Args:
        name: of the option, for messages.
        node: `low` and `high`, and perhaps `log` or `step`; or `choices`.

    Raises:
        ConfigError: it is none.
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
    low: Any = node.get("low")
    high: Any = node.get("high")
    log, step = node.get("log"), node.get("step")
    for key, value in (("low", low), ("high", high), ("step", step)):
        wanted = key != "step" or value is not None
        if wanted and (not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value)):
            raise ConfigError(f"--{name}: {key} must be a number, got {value!r}")
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
    return Numbers(low, high, bool(log), step)


def shown(text: str) -> str:
    """A choice as people would type it."""
    return str(value) if isinstance(value := json.loads(text), str) else text


def as_text(value: Any) -> str:
    """A drawn value as the command line takes it."""
    return shown(value) if isinstance(value, str) else repr(value)


def samples(ranges: Mapping[str, Range]) -> Iterator[dict[str, Any]]:
    """Values to try an option's type by: the ends, and every choice.

    Args:
        ranges: option -> range.

    Yields:
        option -> value, for all of them; each of their values at least once.
    """
    values: dict[str, Sequence[Any]] = {
        name: one.texts if isinstance(one, Choices) else (one.low, one.high) for name, one in ranges.items()
    }
    for at in range(max(map(len, values.values()), default=0)):
        yield {name: several[at % len(several)] for name, several in values.items()}


def put(settings: dict[str, Any], name: str, value: Any) -> None:
    """Set an option in a config for fit.

    Args:
        settings: changed in place.
        name: of the option.
        value: as drawn.
    """
    *path, last = name.split(".")
    for part in path:
        settings = settings.setdefault(part, {})
        if "class_path" in settings:
            settings = settings.setdefault("init_args", {})
    settings[last] = json.loads(value) if isinstance(value, str) else value
