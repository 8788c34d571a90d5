"""Options that say how the values of a table are meant, as a command line or a file of options writes them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from cflightning.errors import DataError

Listed: TypeAlias = list[str] | str | None
"""A list, or its entries in one text with commas between them."""


@dataclass(frozen=True)
class ValueOptions:
    """How the values of a table are meant; plain data throughout. None leaves it to what is sure.

    Attributes:
        decimal: decimal mark of numbers in text, `.` or `,`.
        time_format: form of times in text, as for `datetime.strptime`.
        rating_values: what a rating stands for, such as ``{"like": 1, "dislike": 0}`` or ``like=1,dislike=0``.
        missing: ratings that stand for none; their rows are left out.
        drop_zero_weights: whether rows of weight 0 are left out.
    """

    decimal: str | None = None
    time_format: str | None = None
    rating_values: Mapping[str, float] | str | None = None
    missing: Iterable[float | str] | str | None = None
    drop_zero_weights: bool = False

    def check(self) -> None:
        """Refuse what cannot be.

        Raises:
            DataError: names the option.
        """
        if self.decimal not in (None, ".", ","):
            raise DataError(f"--data.decimal: must be . or a comma, got {str(self.decimal)[:40]!r}")
        if self.time_format is not None and "%" not in self.time_format:
            raise DataError(
                f"--data.time_format: must be a form such as %d.%m.%Y or %m/%d/%Y %H:%M, got {self.time_format[:40]!r}"
            )
        _ = self.values, self.absent

    @property
    def values(self) -> dict[str, float]:
        """Text of a rating -> the number that it stands for."""
        given = self.rating_values
        if given is None:
            return {}
        pairs = given.items() if isinstance(given, Mapping) else (_pair(entry) for entry in split_list(given))
        return {str(text).strip(): _finite(value, str(text)) for text, value in pairs}

    @property
    def absent(self) -> tuple[set[str], list[float]]:
        """Ratings that stand for none: as texts, and those of them that are numbers. An empty text is an empty cell."""
        if self.missing is None:
            return set(), []
        texts = {entry.strip() for entry in _entries(self.missing)}
        numbers = [number for text in texts if (number := to_number(text)) is not None]
        return texts, numbers


AS_WRITTEN = ValueOptions()
"""No options: what is sure by itself."""


def split_list(given: Listed) -> list[str]:
    """Return the entries of a list that is given as one, or as one text with commas; brackets around it may stand."""
    return [] if given is None else [entry.strip() for entry in _entries(given)]


def parse_range(given: Iterable[float] | str | None, option: str = "--data.rating_range") -> tuple[float, float] | None:
    """Return a lowest and a highest value from a pair, or from a text such as ``0.5,5``.

    Raises:
        DataError: something else.
    """
    if given is None:
        return None
    numbers = [to_number(str(entry)) for entry in _entries(given)]
    if len(numbers) != 2 or numbers[0] is None or numbers[1] is None:
        raise DataError(f"{option}: must be two numbers such as 0.5,5, got {str(given)[:60]!r}")
    return numbers[0], numbers[1]


def to_number(text: str) -> float | None:
    """Return the number that a text writes, or None; underscores, which Python allows, belong to no number."""
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
        raise DataError(f"--data.rating_values: must be VALUE=NUMBER with commas between, got {entry[:40]!r}")
    return text, value


def _finite(value: Any, text: str) -> float:
    number = to_number(str(value))
    if number is None or not math.isfinite(number):
        raise DataError(f"--data.rating_values: {text[:40]!r} must stand for a finite number, got {str(value)[:40]!r}")
    return number
