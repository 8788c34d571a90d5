"""Settings of objectives as frozen dataclasses, and the ranges in which `tune` searches them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, NamedTuple, TypeVar

from cflightning.errors import ConfigError

SettingsT = TypeVar("SettingsT")


class TableSize(NamedTuple):
    """Size of a training part, from which default settings are derived.

    Attributes:
        interactions: Number of training rows.
        users: Number of user indices, the unknown user included.
        items: Number of item indices, the unknown item included.
    """

    interactions: int
    users: int
    items: int


class SearchRange(NamedTuple):
    """The values among which `tune` searches a setting: from `low` to `high`, both included; whole if `low` is an int.

    Attributes:
        low: Smallest value.
        high: Largest value.
        log: Whether equal ratios are equally likely, instead of equal differences.
        step: Distance of neighbouring values; None for any number, or any whole number.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def whole(self) -> bool:
        """True if the range has whole numbers only."""
        return isinstance(self.low, int)

    def __str__(self) -> str:
        extra = " (log)" if self.log else f" (step {self.step:g})" if self.step is not None else ""
        return f"{self.low:g} to {self.high:g}{extra}"


def log_range(value: float, factor: float) -> SearchRange:
    """Return the logarithmic range from ``value / factor`` to ``value * factor``."""
    return SearchRange(value / factor, value * factor, log=True)


def setting_names(*kinds: type[Any] | None) -> list[str]:
    """Return the names of the settings of some dataclasses, each once, in their order."""
    return list(dict.fromkeys(field.name for kind in kinds if kind is not None for field in fields(kind)))


def make_settings(kind: type[SettingsT], options: Mapping[str, float | None], objective: str) -> SettingsT:
    """Make the settings of an objective from options by name.

    Args:
        kind: Dataclass of the settings; every field has a default.
        options: Values by name; None keeps the default.
        objective: Name of the objective, for the message.

    Raises:
        ConfigError: An option is not a setting of the objective.
    """
    defaults = {field.name: field.default for field in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(options) - set(defaults)):
        raise ConfigError(f"--model.ranking: has {', '.join(defaults)} with {objective}, got {', '.join(unknown)}")
    values = {name: value for name, value in options.items() if value is not None}
    return kind(**{name: _as_type_of(defaults[name], value) for name, value in values.items()})


def _as_type_of(default: object, value: float) -> float:
    return type(default)(value) if isinstance(default, int) else float(value)
