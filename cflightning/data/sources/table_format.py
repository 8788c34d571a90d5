"""`TableFormat`: the columns of a ratings table, and how its text and its values are written."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from numbers import Real

from cflightning.utils.arguments import Arguments

ROLES = ("user", "item", "rating", "timestamp", "weight", "title", "categories")
"""Roles of the columns of a ratings table; each is a field of `TableFormat`."""
SKIP = ""
"""Column name that leaves ratings or timestamps unread."""


@dataclass(frozen=True)
class TableFormat:
    """Columns and notation of a table.

    Attributes:
        user: Column of user ids, integers or strings. Usual names are recognised, likewise for item, rating, timestamp.
        item: Column of item ids.
        rating: Column of ratings; '' leaves it unread.
        timestamp: Column of times (seconds, ISO 8601); may be missing; '' leaves it unread.
        weight: Column of weights (finite, above 0) of implicit feedback; without it all rows weigh the same.
        title: Column of item titles.
        categories: Column of item categories such as genres, separated by |.
        column_names: Names of the columns of a text table without a header line, such as user,item,rating.
        delimiter: Delimiter of a text table. Default: recognised by the first line.
        encoding: Encoding of a text table, such as cp1251. Default: UTF-8, else a guess, which is logged.
        decimal: Decimal mark of a text table, . or a comma. Default: recognised where it is certain.
        time_format: Format of times in text, such as %d.%m.%Y or %m/%d/%Y %H:%M. Default: recognised where certain.
        rating_values: Numbers for ratings that are words, such as like=1,dislike=0.
        missing: Ratings that mean "not rated", such as -1,99; '' is an empty cell. Their rows are left out.
        drop_zero_weights: Leave out rows of weight 0, which otherwise are an error.
    """

    user: str | None = None
    item: str | None = None
    rating: str | None = None
    timestamp: str | None = None
    weight: str | None = None
    title: str | None = None
    categories: str | None = None
    column_names: list[str] | str | None = None
    delimiter: str | None = None
    encoding: str | None = None
    decimal: str | None = None
    time_format: str | None = None
    rating_values: dict[str, float] | str | None = None
    missing: list[float | str] | str | None = None
    drop_zero_weights: bool = False

    def __post_init__(self) -> None:
        check = Arguments("data.table", self.__dict__)
        for role in ROLES:
            if not isinstance(getattr(self, role), str | None):
                raise check.refuse(role, "be the name of a column")
        check.choice("decimal", (".", ","), optional=True)
        check.flag("drop_zero_weights")
        form = self.time_format
        if form is not None and (not isinstance(form, str) or "%" not in form):
            raise check.refuse("time_format", "be a form such as %d.%m.%Y or %m/%d/%Y %H:%M")
        parsers: tuple[tuple[str, Callable[[], object], str], ...] = (
            ("column_names", lambda: self.names, "be names with commas between them"),
            ("rating_values", lambda: self.rating_numbers, "be VALUE=NUMBER with commas between them, or such a "
                                                           "mapping"),
            ("missing", lambda: self.missing_ratings, "be values with commas between them"),
        )  # fmt: skip
        for name, parse, must in parsers:
            try:
                parse()
            except (TypeError, ValueError) as error:
                raise check.refuse(name, must) from error

    @property
    def columns(self) -> dict[str, str | None]:
        """Role -> column; None where the usual names are to be recognised."""
        return {role: getattr(self, role) for role in ROLES}

    @property
    def reads_ratings(self) -> bool:
        """True if the table must have ratings."""
        return self.rating != SKIP

    @property
    def names(self) -> list[str] | None:
        """Column names of a text table without a header line; None where it has one."""
        return split_list(self.column_names) or None

    @property
    def rating_numbers(self) -> dict[str, float]:
        """Text of a rating -> the number that it stands for.

        Raises:
            ValueError: `rating_values` cannot be parsed.
        """
        values = self.rating_values
        if values is None:
            return {}
        pairs = values.items() if isinstance(values, Mapping) else (_parse_pair(entry) for entry in split_list(values))
        return {str(text).strip(): _parse_finite(value) for text, value in pairs}

    @property
    def missing_ratings(self) -> tuple[set[str], list[float]]:
        """Ratings that mean "not rated": as texts in lower case, and those of them that are numbers.

        An empty text is an empty cell.
        """
        if self.missing is None:
            return set(), []
        texts = {entry.strip().lower() for entry in _entries(self.missing)}
        numbers = [number for text in texts if (number := to_number(text)) is not None]
        return texts, numbers

    def with_columns(self, columns: Mapping[str, str | None]) -> TableFormat:
        """Return the same format with columns by role."""
        return TableFormat(**{**vars(self), **columns})

    def without_ratings(self) -> TableFormat:
        """Return the same format with the ratings left unread."""
        return replace(self, rating=SKIP)

    def as_dict(self) -> dict[str, object]:
        """Return the fields as plain values."""
        return asdict(self)


def split_list(value: list[str] | str | None) -> list[str]:
    """Return the entries of a list, or of a text with commas between them and perhaps brackets around it.

    Raises:
        TypeError: The value is neither.
    """
    if value is None:
        return []
    if not isinstance(value, str | list | tuple):
        raise TypeError("not a list")
    return [entry.strip() for entry in _entries(value)]


def parse_range(value: Iterable[float] | str | None) -> tuple[float, float] | None:
    """Return a lowest and a highest value from a pair, or from a text such as ``0.5,5``.

    Raises:
        ValueError: The value is neither.
    """
    if value is None:
        return None
    low, high = [to_number(text) for text in _entries(value)] if isinstance(value, str) else value
    if not all(isinstance(end, Real) and not isinstance(end, bool) for end in (low, high)):
        raise ValueError("not two numbers")
    return float(low), float(high)  # type: ignore[arg-type]


def to_number(text: str) -> float | None:
    """Return the number that a text writes, or None; underscores, which Python allows, are refused."""
    try:
        return float(text) if "_" not in text else None
    except ValueError:
        return None


def _entries(value: object) -> list[str]:
    if not isinstance(value, str):
        entries = value if isinstance(value, Iterable) else [value]
        return [f"{entry:g}" if isinstance(entry, float) and entry.is_integer() else str(entry) for entry in entries]
    text = value.strip()
    if text[:1] + text[-1:] in ("[]", "()"):
        text = text[1:-1]
    return text.split(",")


def _parse_pair(entry: str) -> tuple[str, str]:
    text, equals, value = entry.rpartition("=")
    if not equals:
        raise ValueError("no equals sign")
    return text, value


def _parse_finite(value: object) -> float:
    number = to_number(str(value))
    if number is None or not math.isfinite(number):
        raise ValueError("not a finite number")
    return number


PLAIN_TABLE = TableFormat()
"""A table with a header line and the usual column names, delimiters and notations."""
