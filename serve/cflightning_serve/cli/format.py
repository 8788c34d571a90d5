"""Answers as text: aligned tables for people, plain values for JSON."""

import math
from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Lay rows out in columns: numbers to the right, text to the left, missing values blank.

    A column that has no value at all, such as the titles of a bundle without titles, is left out.
    """
    columns = [
        (name, values)
        for name, values in zip(header, zip(*rows, strict=True) if rows else [()] * len(header), strict=True)
        if not rows or any(value is not None for value in values)
    ]
    laid_out = []
    for name, values in columns:
        digits = _decimals(values)
        cells = [name, *(_cell(value, digits) for value in values)]
        width = max(map(len, cells))
        right = bool(values) and all(isinstance(value, (int, float)) for value in values)
        laid_out.append([cell.rjust(width) if right else cell.ljust(width) for cell in cells])
    return "\n".join("  ".join(line).rstrip() for line in zip(*laid_out, strict=True))


def _decimals(values: Sequence[object]) -> int:
    """Three decimals, or as many as show three digits of a column's largest number."""
    largest = max((abs(value) for value in values if isinstance(value, float) and math.isfinite(value)), default=0.0)
    return max(3, 2 - math.floor(math.log10(largest))) if largest > 0 else 3


def _cell(value: object, decimals: int) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{round(value, decimals) + 0.0:.{decimals}f}"  # no minus before zeros
    # Titles and ids come from data: nothing in them may steer the terminal or break the line.
    return "".join(mark if mark.isprintable() else "?" for mark in str(value))
