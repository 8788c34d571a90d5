"""Options about the values of a table, in the forms that a command line or a YAML file writes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, TypeAlias

Listed: TypeAlias = list[str] | str | None
"""A list, or one text with commas."""


@dataclass(frozen=True)
class ValueOptions:
    """Interpretation of the values of a table. None means detection.

    Attributes:
        decimal: Decimal mark of numbers in text, `.` or `,`.
        time_format: Format of times in text, as for `datetime.strptime`.
        rating_values: Numbers of ratings in words, such as ``{"like": 1, "dislike": 0}`` or ``like=1,dislike=0``.
        missing: Ratings that mean "not rated"; their rows are dropped.
        drop_zero_weights: Whether rows of weight 0 are dropped.
    """

    decimal: str | None = None
    time_format: str | None = None
    rating_values: Mapping[str, float] | str | None = None
    missing: Iterable[float | str] | str | None = None
    drop_zero_weights: bool = False

    @property
    def values(self) -> dict[str, float]:
        """Return `rating_values` as text -> number.

        Raises:
            ValueError: The option is malformed.
        """
        given = self.rating_values
        if given is None:
            return {}
        pairs = given.items() if isinstance(given, Mapping) else (_pair(entry) for entry in split_list(given))
        return {str(text).strip(): _finite(value) for text, value in pairs}

    @property
    def absent(self) -> tuple[set[str], list[float]]:
        """Return `missing` as texts in lower case, and those of them that are numbers.

        An empty text matches an empty cell.
        """
        if self.missing is None:
            return set(), []
        texts = {entry.strip().lower() for entry in _entries(self.missing)}
        numbers = [number for text in texts if (number := to_number(text)) is not None]
        return texts, numbers


AS_WRITTEN = ValueOptions()
"""Default options."""


def split_list(given: Listed) -> list[str]:
    """Return the entries of a list or of a text with commas, with or without brackets.

    Raises:
        TypeError: The value is neither.
    """
    if given is None:
        return []
    if not isinstance(given, str | list | tuple):
        raise TypeError("no list")
    return [entry.strip() for entry in _entries(given)]


def parse_range(given: Iterable[float] | str | None) -> tuple[float, float] | None:
    """Return lowest and highest value from a pair or a text such as ``0.5,5``.

    Raises:
        ValueError: The value is neither.
    """
    if given is None:
        return None
    low, high = [to_number(text) for text in _entries(given)] if isinstance(given, str) else given
    if not all(isinstance(end, Real) and not isinstance(end, bool) for end in (low, high)):
        raise ValueError("no two numbers")
    return float(low), float(high)  # type: ignore[arg-type]


def to_number(text: str) -> float | None:
    """Parse a number; None if the text is not one. Underscores, which Python allows, are rejected."""
    try:
        return float(text) if "_" not in text else None
    except ValueError:
        return None


def _entries(given: Any) -> list[str]:
    if not isinstance(given, str):
        return [_written(entry) for entry in (given if isinstance(given, Iterable) else [given])]
    text = given.strip()
    if text[:1] + text[-1:] in ("[]", "()"):
        text = text[1:-1]
    return text.split(",")


def _written(entry: Any) -> str:
    return f"{entry:g}" if isinstance(entry, float) and entry.is_integer() else str(entry)


def _pair(entry: str) -> tuple[str, str]:
    text, equals, value = entry.rpartition("=")
    if not equals:
        raise ValueError("no equals sign")
    return text, value


def _finite(value: Any) -> float:
    number = to_number(str(value))
    if number is None or not math.isfinite(number):
        raise ValueError("no finite number")
    return number
