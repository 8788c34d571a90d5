"""Detection of values that are probably not ratings: outliers, codes for "not rated", counts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cflightning.data.table import RatingTable

SAMPLE_ROWS = 100_000
"""Approximate number of ratings that are examined for quantiles."""
MIN_ROWS = 100
"""Fewest ratings of a table that is examined."""
USUAL_MAXIMUM = 10.0
"""Highest rating, in rating units, that is common even if few ratings are near it."""


class Suspect(NamedTuple):
    """A value that is probably not a rating.

    Attributes:
        value: The value, in rating units.
        rows: Number of ratings of that value.
    """

    value: float
    rows: int


def warn_of_ratings(table: RatingTable, weight_column: str) -> str | None:
    """Return a warning about values that are probably not ratings; None if there are none.

    Args:
        table: A table with ratings.
        weight_column: Name of the column of ratings, for advice.
    """
    if look_like_counts(table.ratings):
        median, high = np.median(table.ratings), table.ratings.max()
        return (
            f"{table.name}: ratings look like counts (half of them are at most {median:g}, the highest is {high:g}), "
            f"whose errors are dominated by the few highest; to treat them as weights of interactions, give "
            f"--data.feedback implicit --data.table.weight {weight_column}"
        )
    suspects = find_suspects(table.ratings)
    if not suspects:
        return None
    others = table.ratings[~np.isin(table.ratings, [suspect.value for suspect in suspects])]
    low, high = float(others.min()), float(others.max())
    shown = ", ".join(
        f"{suspect.rows:,} {'is' if suspect.rows == 1 else 'are'} {suspect.value:g}" for suspect in suspects[:3]
    )
    values = ",".join(f"{suspect.value:g}" for suspect in suspects[:3])
    more = f" (and {len(suspects) - 3} more such values)" if len(suspects) > 3 else ""
    ends = f"{min(low, suspects[0].value):g},{max(high, suspects[-1].value):g}"
    return (
        f"{table.name}: of {len(table):,} ratings {shown}{more}, far from the others, which are between {low:g} and "
        f"{high:g}; if they mean that there is no rating, leave such rows out: --data.table.missing={values}; if they "
        f"are intended, give --data.rating_range={ends}"
    )


def find_suspects(ratings: np.ndarray) -> list[Suspect]:
    """Find values that are far from all others.

    Rare values (about one rating in a thousand) are far if their distance to the others exceeds the range of these;
    frequent values if it exceeds three times that range, or if one is the only negative value.

    Args:
        ratings: float32 [n].

    Returns:
        The values in ascending order.
    """
    n = len(ratings)
    if n < MIN_ROWS:
        return []
    few = max(n // 1000, min(10, n // 100))
    lowest, highest = float(ratings.min()), float(ratings.max())
    values, counts = np.unique(ratings[:: -(-n // SAMPLE_ROWS)], return_counts=True)
    low, high = _quantiles(values, counts, few / n)
    far: set[float] = set()
    span = high - low
    if span > 0 and (lowest < 0 or highest > USUAL_MAXIMUM) and (highest > high + span or lowest < low - 3 * span):
        outside = ratings[(ratings > high + span) | (ratings < low - 3 * span)]
        if len(outside) <= few:
            far = {*np.unique(outside).tolist()}
    plausible = ~np.isin(values, [*far])
    far |= _codes(values[plausible], counts[plausible])
    return [Suspect(value, int(np.count_nonzero(ratings == np.float32(value)))) for value in sorted(far)]


def look_like_counts(ratings: np.ndarray) -> bool:
    """Return whether ratings are not negative and have a long tail, as counts of plays or clicks have."""
    if len(ratings) < MIN_ROWS or ratings.min() < 0 or ratings.max() <= 2 * USUAL_MAXIMUM:
        return False
    sample = ratings[:: -(-len(ratings) // SAMPLE_ROWS)]
    median, high = np.quantile(sample, [0.5, 0.99])
    tail = np.unique(sample[sample >= 5 * median])
    return bool(high >= 5 * median and high > USUAL_MAXIMUM and len(tail) > 3)  # fewer are codes such as 99


def _quantiles(values: np.ndarray, counts: np.ndarray, share: float) -> tuple[float, float]:
    """Return the range of the values without a share of the rows at either end."""
    cumulated = np.cumsum(counts) / counts.sum()
    low = values[np.searchsorted(cumulated, share, side="right")]
    high = values[np.searchsorted(cumulated, 1 - share - 1e-12)]
    return float(low), float(high)


def _codes(values: np.ndarray, counts: np.ndarray) -> set[float]:
    """Return values that mean "not rated", however frequent."""
    codes = {*_beyond(values, counts), *(-value for value in _beyond(-values[::-1], counts[::-1]))}
    if np.count_nonzero(values < 0) == 1 and np.count_nonzero(values > 0) >= 3:
        codes.add(float(values[0]))
    return codes


def _beyond(values: np.ndarray, counts: np.ndarray) -> list[float]:
    """Return at most three highest values whose distance to the others exceeds three times the range of these."""
    for above in (1, 2, 3):
        core = values[:-above]
        if len(core) < 3 or 2 * counts[:-above].sum() < counts.sum():
            break
        if values[-above] - core[-1] > 3 * (core[-1] - core[0]):
            beyond: list[float] = values[-above:].tolist()
            return beyond
    return []
