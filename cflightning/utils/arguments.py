"""Checks of constructor arguments with a fixed set of values or a range."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from cflightning.errors import ArgumentError
from cflightning.utils.text import truncate


class Arguments:
    """The arguments of one constructor, checked one by one.

    Messages have the name of the argument in Python; the command line adds the group
    (`--model.dim: must be at least 1, got 0`).

    Args:
        group: Group of the options on the command line.
        values: Name -> value.
    """

    def __init__(self, group: Literal["data", "data.split", "data.table", "model"], values: Mapping[str, Any]) -> None:
        self.group, self.values = group, values

    def refuse(self, name: str, must: str, value: object = None) -> ArgumentError:
        """Return the error for an argument: what must hold, and what was got (by default the value)."""
        text = truncate(repr(self.values[name] if value is None else value), 60)
        return ArgumentError(self.group, name, f"must {must}, got {text}")

    def choice(self, name: str, choices: Iterable[str], *, optional: bool = False) -> None:
        """Check that an argument is one of the choices; `optional` arguments can be None."""
        value, allowed = self.values[name], list(choices)
        if value is None and optional:
            return
        if not isinstance(value, str) or value not in allowed:
            raise self.refuse(name, f"be one of {', '.join(allowed)}{' or None' if optional else ''}")

    def flag(self, name: str) -> None:
        """Check that an argument is True or False."""
        if not isinstance(self.values[name], bool):
            raise self.refuse(name, "be True or False")

    def whole(self, name: str, least: int | None = None, *, optional: bool = False) -> None:
        """Check that an argument is a whole number, and not below the least one."""
        value = self.values[name]
        if value is None and optional:
            return
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise self.refuse(name, "be a whole number")
        if least is not None and value < least:
            raise self.refuse(name, f"be at least {least}" if least else "not be negative")

    def number(self, name: str, least: float | None = None, below: float | None = None, *, above: float | None = None,
               optional: bool = False) -> None:  # fmt: skip
        """Check that an argument is a finite number in a range: at least or above one bound, and below another."""
        value = self.values[name]
        if value is None and optional:
            return
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
            raise self.refuse(name, "be a finite number")
        value = float(value)
        if least == 0 and below is None and value < 0:
            raise self.refuse(name, "not be negative")
        bounds = [
            (least is None or value >= least, f"at least {least:g}" if least is not None else ""),
            (above is None or value > above, f"above {above:g}" if above is not None else ""),
            (below is None or value < below, f"below {below:g}" if below is not None else ""),
        ]
        if not all(holds for holds, _ in bounds):
            raise self.refuse(name, f"be {' and '.join(words for _, words in bounds if words)}")
