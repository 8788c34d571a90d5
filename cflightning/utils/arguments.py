"""Checks of constructor arguments that have a fixed set of values or a range."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from cflightning.errors import ArgumentError


class Arguments:
    """The arguments of one constructor, checked one by one.

    Messages name the argument as Python has it; the command line puts its own beginning before it
    (`--model.dim: must be at least 1, got 0`).

    Args:
        group: Where the command line has them.
        given: Name -> value.
    """

    def __init__(self, group: Literal["data", "data.split", "data.table", "model"], given: Mapping[str, Any]) -> None:
        self.group, self.given = group, given

    def refuse(self, name: str, must: str, value: Any = None) -> ArgumentError:
        """Return the error for an argument: what must hold, and what was got (by default what was given)."""
        shown = repr(self.given[name] if value is None else value)
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        return ArgumentError(self.group, name, f"must {must}, got {shown}")

    def choice(self, name: str, choices: Iterable[Any], *, optional: bool = False) -> None:
        """Refuse what is none of the choices; `optional` arguments may be None."""
        value, known = self.given[name], list(choices)
        if value is None and optional:
            return
        if not isinstance(value, str) or value not in known:
            raise self.refuse(name, f"be one of {', '.join(known)}{' or None' if optional else ''}")

    def flag(self, name: str) -> None:
        """Refuse what is neither True nor False."""
        if not isinstance(self.given[name], bool):
            raise self.refuse(name, "be True or False")

    def whole(self, name: str, least: int | None = None, *, optional: bool = False) -> None:
        """Refuse what is no whole number, or below the least one."""
        value = self.given[name]
        if value is None and optional:
            return
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise self.refuse(name, "be a whole number")
        if least is not None and value < least:
            raise self.refuse(name, f"be at least {least}" if least else "not be negative")

    def number(self, name: str, least: float | None = None, below: float | None = None, *, above: float | None = None,
               optional: bool = False) -> None:  # fmt: skip
        """Refuse what is no finite number, or outside its range: at least, or above, one number and below another."""
        value = self.given[name]
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
