"""Settings of ranking objectives as frozen dataclasses, and the ranges in which `tune` searches them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, Self, TypeVar

from cflightning.errors import ConfigError


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


def setting(*, solver: Any = None, autograd: Any = None) -> Any:
    """Declare a setting that not all training has, or whose default depends on the training.

    Args:
        solver: Default in training by the solver; None if the solver does not have the setting.
        autograd: Default in training by autograd; None if autograd does not have the setting.
    """
    defaults = {kind: value for kind, value in (("solver", solver), ("autograd", autograd)) if value is not None}
    return field(default=next(iter(defaults.values())), metadata=defaults)


@dataclass(frozen=True, kw_only=True)
class RankingSettings:
    """Base class of the settings of one ranking objective, a field each.

    Every field has a default. It holds for the solver and for autograd, unless the field is declared by `setting`. None
    stands for a default that depends on the training part, see `resolve`.
    """

    @classmethod
    def defaults(cls, *, by_autograd: bool = False) -> dict[str, Any]:
        """Return the defaults by name: of the settings that autograd has, or else of those that the solver has."""
        kind = "autograd" if by_autograd else "solver"
        members = (member for member in fields(cls) if not member.metadata or kind in member.metadata)
        return {member.name: member.metadata.get(kind, member.default) for member in members}

    @classmethod
    def make(cls, options: Mapping[str, float | None], objective: str, *, by_autograd: bool = False) -> Self:
        """Make settings from options.

        Args:
            options: Values by name; None keeps the default.
            objective: Name of the objective, for the message.
            by_autograd: Whether autograd trains instead of the solver.

        Raises:
            ConfigError: An option is not a setting of the objective in this training.
        """
        defaults = cls.defaults(by_autograd=by_autograd)
        if unknown := sorted(set(options) - set(defaults)):
            raise ConfigError(f"--model.ranking: has {', '.join(defaults)} with {objective}, got {', '.join(unknown)}")
        values = {name: _as_type_of(defaults[name], value) for name, value in options.items() if value is not None}
        return cls(**(defaults | values))

    def resolve(self, size: TableSize) -> Self:
        """Return the settings with the defaults that depend on the size of the training part."""
        return self

    def values(self, *, by_autograd: bool = False) -> dict[str, float]:
        """Return the values by name: of the settings that autograd has, or else of those that the solver has."""
        return {name: getattr(self, name) for name in self.defaults(by_autograd=by_autograd)}


SettingsT = TypeVar("SettingsT", bound=RankingSettings)


def _as_type_of(default: object, value: float) -> float:
    return type(default)(value) if isinstance(default, int) else float(value)
