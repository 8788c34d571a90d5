"""The ratings table: what every source delivers and every split cuts."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import pandas as pd

from cflightning.errors import DataError

log = logging.getLogger(__name__)

Id: TypeAlias = int | str
Duplicates = Literal["error", "last", "mean"]


@dataclass(frozen=True)
class RatingTable:
    """Who rated what, and how.

    Attributes:
        frame: one row a rating; columns `user` and `item` (int64 or str), `rating` (float32, rating units; absent in a
            table that is only to be scored) and, where known, `timestamp` (int64, seconds).
        name: the source, for messages.
        titles: item id -> title, where known.
        test_rows: bool [rows], the source's own test part, or None.
        noise_floor: float64 [rows], squared error of the best possible prediction (synthetic data), or None.
    """

    frame: pd.DataFrame
    name: str
    titles: dict[Id, str] = field(default_factory=dict)
    test_rows: np.ndarray | None = None
    noise_floor: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def has_ratings(self) -> bool:
        """Whether there is a truth to train on or test against."""
        return "rating" in self.frame


def check_range(table: RatingTable, rating_range: tuple[float, float]) -> None:
    """Refuse ratings outside `rating_range` (rating units, both ends included).

    Raises:
        DataError: names the count and the first offenders.
    """
    low, high = rating_range
    if not -np.inf < low < high < np.inf:
        raise DataError(f"--data.rating_range: must be finite and low < high, got {low:g}, {high:g}")
    ratings = table.frame["rating"].to_numpy()
    outside = np.flatnonzero((ratings < low) | (ratings > high))
    if len(outside):
        raise DataError(
            f"{table.name}: column 'rating': must lie in the given range {low:g} to {high:g}, "
            f"got {len(outside):,} outside it ({_show(table, outside)}); widen --data.rating_range or correct the rows"
        )


def merge_duplicates(table: RatingTable, policy: Duplicates) -> RatingTable:
    """Make every (user, item) pair unique.

    Args:
        table: any table with ratings.
        policy: `error` refuses; `last` keeps the newest (by timestamp where known, else by position); `mean` averages
            the ratings and keeps the newest timestamp. The train and the test part of a predefined split are merged
            each for itself; a pair that stands in both is kept in the test part alone.

    Raises:
        DataError: `policy` is `error` and there are duplicates, or there is no such policy.
    """
    if policy not in get_args(Duplicates):
        raise DataError(f"--data.duplicates: must be one of {', '.join(get_args(Duplicates))}, got {policy!r}")
    frame = table.frame
    # Two integer codes packed in one are hashed ten times as fast as pairs of strings.
    users, items = pd.factorize(frame["user"])[0], pd.factorize(frame["item"])[0]
    pair = pd.Series(users.astype(np.int64) * (int(items.max(initial=0)) + 1) + items)
    repeated = pair.duplicated(keep="first").to_numpy()
    if not repeated.any():
        return table
    if policy == "error":
        rows = np.flatnonzero(repeated)
        raise DataError(
            f"{table.name}: every (user, item) pair must stand once, "
            f"got {len(rows):,} repeated ({_show(table, rows)}); "
            "choose --data.duplicates last (keep the newest) or mean (average them)"
        )
    log.info("%s: %d repeated (user, item) pairs merged: %s", table.name, repeated.sum(), policy)
    test = np.zeros(len(frame), dtype=bool) if table.test_rows is None else table.test_rows
    trained_and_tested = ~test & pair.isin(pair[test]).to_numpy()
    place = pair * 2 + test  # merged inside each part: no test rating may reach a training row
    order = np.argsort(frame["timestamp"].to_numpy(), kind="stable") if "timestamp" in frame else np.arange(len(frame))
    newest = np.zeros(len(frame), dtype=bool)
    newest[order[~place.iloc[order].duplicated(keep="last").to_numpy()]] = True
    keep = np.flatnonzero(newest & ~trained_and_tested)
    merged = frame.iloc[keep].reset_index(drop=True)
    if policy == "mean":
        means = frame["rating"].astype(np.float64).groupby(place.to_numpy()).mean()
        merged["rating"] = means.loc[place.to_numpy()[keep]].to_numpy().astype(np.float32)
    cut: dict[str, Any] = {
        name: None if (value := getattr(table, name)) is None else value[keep] for name in ("test_rows", "noise_floor")
    }
    return replace(table, frame=merged, **cut)


def _show(table: RatingTable, rows: np.ndarray, most: int = 3) -> str:
    """The first few offending rows, as people know them: user, item, rating and 1-based row number."""
    shown = [
        f"row {row + 1:,}: user {frame_row.user!r}, item {frame_row.item!r}, rating {frame_row.rating:g}"
        for row, frame_row in zip(
            rows[:most].tolist(), table.frame.iloc[rows[:most]].itertuples(index=False), strict=True
        )
    ]
    return "; ".join(shown) + ("; …" if len(rows) > most else "")
