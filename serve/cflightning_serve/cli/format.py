"""Text output: aligned tables, top-k lists and notes."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cflightning_serve.bundle.ids import IdArray
from cflightning_serve.bundle.manifest import Unit
from cflightning_serve.cli.parse import Ids
from cflightning_serve.inference.results import TopKUsers, shortest_float
from cflightning_serve.scorer import Scorer

MIN_DECIMALS = 3
"""Decimals of numbers in tables; columns of small numbers get more, for three significant digits."""
MAX_NAMED_IDS = 3
"""Number of ids that a note names."""


def format_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Align rows in columns: numbers right, text left, None blank.

    A column without any value, such as the titles of a bundle without titles, is left out.
    """
    columns = [
        (name, values)
        for name, values in zip(header, zip(*rows, strict=True) if rows else [()] * len(header), strict=True)
        if not rows or any(value is not None for value in values)
    ]
    aligned = []
    for name, values in columns:
        decimals = _decimals(values)
        cells = [name, *(_format_cell(value, decimals) for value in values)]
        width = max(map(len, cells))
        is_numeric = bool(values) and all(isinstance(value, (int, float)) for value in values)
        aligned.append([cell.rjust(width) if is_numeric else cell.ljust(width) for cell in cells])
    return "\n".join("  ".join(line).rstrip() for line in zip(*aligned, strict=True))


def _decimals(values: Sequence[object]) -> int:
    """Return the number of decimals that show at least three digits of a column's largest number."""
    largest = max((abs(value) for value in values if isinstance(value, float) and math.isfinite(value)), default=0.0)
    return max(MIN_DECIMALS, 2 - math.floor(math.log10(largest))) if largest > 0 else MIN_DECIMALS


def _format_cell(value: object, decimals: int) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{round(value, decimals) + 0.0:.{decimals}f}"  # adding 0 avoids -0.000
    # Titles and ids come from data: they must not contain control sequences of the terminal or line breaks.
    return "".join(mark if mark.isprintable() else "?" for mark in str(value))


class ItemRow(NamedTuple):
    """An item with its value (score, similarity or contribution) and its title."""

    item: int | str
    value: float
    title: str | None


def item_rows(scorer: Scorer, items: IdArray | Ids, values: npt.NDArray[np.float32]) -> list[ItemRow]:
    """Combine items, values and titles to rows."""
    ids = items if isinstance(items, list) else items.tolist()
    return list(map(ItemRow, ids, map(shortest_float, values), scorer.titles(ids)))


def rows_to_json(rows: Sequence[ItemRow], measure: str) -> list[dict[str, object]]:
    """Convert rows to JSON objects with the value under the key ``measure``."""
    return [{"item": row.item, measure: row.value, "title": row.title} for row in rows]


def format_top_k(rows: Sequence[ItemRow], column: str) -> str:
    """Format a top-k list as a table with ranks, the values in the column ``column``."""
    if not rows:
        return "no items left"
    return format_table(("#", "item", column, "title"), [(rank, *row) for rank, row in enumerate(rows, 1)])


def format_titled_top_k(title: str, rows: Sequence[ItemRow], column: str) -> str:
    """Format a top-k list below a title."""
    return f"{title}\n{format_top_k(rows, column)}" if rows else f"{title}: {format_top_k(rows, column)}"


def format_titled_top_k_users(title: str, top: TopKUsers, column: str) -> str:
    """Format users below a title, their scores in the column ``column``."""
    if not len(top.users):
        return f"{title}: no users left"
    rows = enumerate(zip(top.users.tolist(), map(shortest_float, top.scores), strict=True), 1)
    return f"{title}\n{format_table(('#', 'user', column), [(rank, *row) for rank, row in rows])}"


def user_rows_to_json(top: TopKUsers, measure: str) -> list[dict[str, object]]:
    """Convert users to JSON objects with the score under the key ``measure``."""
    return [
        {"user": user, measure: shortest_float(score)}
        for user, score in zip(top.users.tolist(), top.scores, strict=True)
    ]


def score_heading(unit: Unit) -> str:
    """Return the heading of a column of scores, which must not be mistaken for ratings if they have no unit."""
    return "score" if unit == "rating" else unit


def title_in_parentheses(title: str | None) -> str:
    """Return a title after a space and in parentheses; empty without a title."""
    return "" if title is None else f" ({title})"


def unknown_ids_note(name: str, ids: Sequence[object], consequence: str) -> list[str]:
    """Return one note on unknown ids; none if there are no ids.

    Args:
        name: "user" or "item".
        ids: the unknown ids; duplicates are counted once.
        consequence: treatment of these ids.
    """
    distinct = list(dict.fromkeys(ids))
    if not distinct:
        return []
    names = ", ".join(map(str, distinct[:MAX_NAMED_IDS]))
    if len(distinct) == 1:
        return [f"{name} {names} is unknown: {consequence}"]
    more = ", ..." if len(distinct) > MAX_NAMED_IDS else ""
    return [f"{len(distinct)} {name}s are unknown ({names}{more}): {consequence}"]
