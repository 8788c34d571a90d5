"""`RatingTable`: ratings or interactions, one a row, as every source returns them."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cflightning.data.fingerprint import digest_rows
from cflightning.data.ids import Id, IdColumn
from cflightning.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

Duplicates = Literal["error", "last", "mean", "sum"]
LARGEST_RATING = 1e12
"""Largest magnitude of a rating, in rating units: sums of larger squares exceed float32."""
DIGESTED = ("rating", "weight", "timestamp", "test_rows")
"""Optional columns that the fingerprint depends on."""


@dataclass(frozen=True)
class Origin:
    """Columns and properties of the source of a table.

    Attributes:
        columns: Role, such as user -> name of the column.
        unread: Other columns of the source.
        notes: Detected properties, such as an encoding or a decimal comma.
    """

    columns: dict[str, str] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


UNKNOWN_ORIGIN = Origin()
"""The origin of a table that was not read from a source."""


@dataclass(frozen=True, repr=False)
class RatingTable:
    """Ratings or interactions, one a row.

    Attributes:
        user: User ids.
        item: Item ids.
        rating: float32 [rows], rating units; None for implicit feedback, or for rows to be scored.
        timestamp: int64 [rows], seconds; None where not known.
        name: Name of the source, for messages.
        titles: Item id -> title, where known.
        test_rows: bool [rows], the test part of the source, or None.
        noise_floor: float64 [rows], squared error of the best possible prediction (synthetic data), or None.
        weight: float32 [rows], above 0, weights of interactions; None where all are equal.
        categories: Item id -> its categories, such as genres, where known.
        unique: Whether every (user, item) pair is known to occur once.
        origin: Columns and properties of the source; None for synthetic tables.
    """

    user: IdColumn
    item: IdColumn
    rating: np.ndarray | None
    timestamp: np.ndarray | None
    name: str
    titles: dict[Id, str] = field(default_factory=dict)
    test_rows: np.ndarray | None = None
    noise_floor: np.ndarray | None = None
    unique: bool = False
    weight: np.ndarray | None = None
    categories: dict[Id, tuple[str, ...]] = field(default_factory=dict)
    origin: Origin | None = None

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, name: str, **more: Any) -> RatingTable:
        """Make a table of valid columns `user`, `item` (int64 or str) and optionally `rating`, `weight`, `timestamp`.

        Args:
            frame: One rating a row; nothing is checked, as `sources.frames.from_frame` does.
            name: Name of the source, for messages.
            more: Other attributes.
        """
        rating = frame["rating"].to_numpy(np.float32) if "rating" in frame else None
        weight = frame["weight"].to_numpy(np.float32) if "weight" in frame else None
        timestamp = frame["timestamp"].to_numpy(np.int64) if "timestamp" in frame else None
        user, item = IdColumn.encode(frame["user"]), IdColumn.encode(frame["item"])
        return cls(user, item, rating, timestamp, name, weight=weight, **more)

    def __len__(self) -> int:
        return len(self.user)

    def __repr__(self) -> str:
        return f"RatingTable({self.name}: {self.summary})"

    @property
    def summary(self) -> str:
        """Numbers of rows, users and items and the range of the ratings, as text."""
        what = "rows" if self.rating is None else "ratings"
        if self.rating is not None and len(self):
            what += f" of {self.rating.min():g} to {self.rating.max():g}"
        users, items = (np.count_nonzero(np.bincount(side.codes)) for side in (self.user, self.item))
        return f"{len(self):,} {what} by {users:,} users for {items:,} items"

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A data frame with the columns `user`, `item` (int64 or str) and, where known, the others."""
        import pandas as pd

        columns: dict[str, object] = {
            side: column.values if column.ids.kind == "int64" else pd.array(column.values, dtype="str")
            for side, column in (("user", self.user), ("item", self.item))
        }
        columns |= {"rating": self.rating, "weight": self.weight, "timestamp": self.timestamp}
        return pd.DataFrame({name: column for name, column in columns.items() if column is not None})

    @cached_property
    def fingerprint(self) -> str:
        """Digest of all rows in their order (:func:`~cflightning.data.fingerprint.digest_rows`)."""
        return digest_rows(self.user, self.item, {name: getattr(self, name) for name in DIGESTED})

    @property
    def ratings(self) -> np.ndarray:
        """The ratings, float32 [rows].

        Raises:
            DataError: The table has none.
        """
        if self.rating is None:
            raise DataError(f"{self.name}: must have ratings to train on or test against, got none")
        return self.rating

    def take(self, rows: np.ndarray | slice) -> RatingTable:
        """Return some of the rows: positions, a slice or a mask."""
        return replace(
            self,
            user=self.user.take(rows),
            item=self.item.take(rows),
            rating=_take(self.rating, rows),
            timestamp=_take(self.timestamp, rows),
            test_rows=_take(self.test_rows, rows),
            noise_floor=_take(self.noise_floor, rows),
            weight=_take(self.weight, rows),
        )

    def append(self, test: RatingTable, name: str) -> RatingTable:
        """Return a training and a test table as one, whose test rows are marked; common columns are kept."""
        return RatingTable(
            user=self.user.append(test.user),
            item=self.item.append(test.item),
            rating=_concatenate(self.rating, test.rating),
            timestamp=_concatenate(self.timestamp, test.timestamp),
            name=name,
            titles=test.titles | self.titles,
            test_rows=np.repeat([False, True], [len(self), len(test)]),
            weight=_concatenate(self.weight, test.weight),
            categories=test.categories | self.categories,
            origin=self.origin,
        )


def check_range(table: RatingTable, rating_range: tuple[float, float]) -> None:
    """Refuse ratings outside `rating_range` (rating units, both ends included).

    Raises:
        DataError: There are such ratings; names their number and the first ones.
    """
    low, high = rating_range
    outside = np.flatnonzero((table.ratings < low) | (table.ratings > high))
    if len(outside):
        raise DataError(
            f"{table.name}: column 'rating': must lie in the given range {low:g} to {high:g}, "
            f"got {len(outside):,} outside it ({_show(table, outside)}); widen --data.rating_range or correct the rows"
        )


def pair_codes(table: RatingTable) -> np.ndarray:
    """Return one code for each distinct (user, item) pair: int64 [rows]."""
    pairs: np.ndarray = table.user.codes * np.int64(max(len(table.item.ids), 1)) + table.item.codes
    return pairs


def has_duplicates(table: RatingTable) -> bool:
    """Return whether a (user, item) pair occurs twice."""
    if table.unique:
        return False
    pairs = pair_codes(table)
    pairs.sort()  # in place: faster than hashing, without its memory
    return bool((pairs[1:] == pairs[:-1]).any())


def merge_duplicates(table: RatingTable, policy: Duplicates) -> RatingTable:
    """Make every (user, item) pair unique.

    Args:
        table: The table.
        policy: `error` refuses; `last` keeps the newest (by timestamp where known, else by position); `mean` averages
            the ratings (or weights), `sum` adds the weights, and both keep the newest timestamp. The training and the
            test part of a predefined split are merged separately; a pair in both is kept in the test part alone.

    Raises:
        DataError: `policy` is `error` and there are duplicates, or `sum` and there are ratings.
    """
    if policy == "sum" and table.rating is not None:
        raise DataError("--data.duplicates: must be error, last or mean with ratings, got sum, which adds weights")
    if not has_duplicates(table):
        return replace(table, unique=True)
    import pandas as pd

    pair = pd.Series(pair_codes(table))
    repeated = pair.duplicated(keep="first").to_numpy()
    if policy == "error":
        rows = np.flatnonzero(repeated)
        raise DataError(
            f"{table.name}: every (user, item) pair must occur once, "
            f"got {len(rows):,} repeated ({_show(table, rows)}); "
            f"choose --data.duplicates last (keep the newest) or {'sum' if table.rating is None else 'mean'} "
            f"({'count them once' if table.rating is None else 'average them'})"
        )
    log.info("%s: %d repeated (user, item) pairs merged: %s", table.name, repeated.sum(), policy)
    n = len(table)
    test = np.zeros(n, dtype=bool) if table.test_rows is None else table.test_rows
    trained_and_tested = ~test & pair.isin(pair[test]).to_numpy()
    group = pair * 2 + test  # merged within each part: no test rating may reach a training row
    order = np.arange(n) if table.timestamp is None else np.argsort(table.timestamp, kind="stable")
    newest = np.zeros(n, dtype=bool)
    newest[order[~group.iloc[order].duplicated(keep="last").to_numpy()]] = True
    keep = np.flatnonzero(newest & ~trained_and_tested)
    merged = replace(table.take(keep), unique=True)
    values = table.weight if table.rating is None else table.rating
    if policy == "last" or values is None:
        return merged
    groups = pd.Series(values.astype(np.float64)).groupby(group.to_numpy())
    merged_values = groups.mean() if policy == "mean" else groups.sum()
    column = merged_values.loc[group.to_numpy()[keep]].to_numpy().astype(np.float32)
    return replace(merged, weight=column) if table.rating is None else replace(merged, rating=column)


def _take(column: np.ndarray | None, rows: np.ndarray | slice) -> np.ndarray | None:
    return None if column is None else column[rows]


def _concatenate(first: np.ndarray | None, second: np.ndarray | None) -> np.ndarray | None:
    return None if first is None or second is None else np.concatenate([first, second])


def _show(table: RatingTable, rows: np.ndarray) -> str:
    """Return the first three rows for a message: user, item, rating and 1-based row number."""
    shown = [
        f"row {row + 1:,}: user {values.user!r}, item {values.item!r}"
        + ("" if table.rating is None else f", rating {values.rating:g}")
        for row, values in zip(rows[:3].tolist(), table.take(rows[:3]).frame.itertuples(index=False), strict=True)
    ]
    return "; ".join(shown) + ("; …" if len(rows) > 3 else "")
