"""Comparison of the tables that the processes of one training have read."""

from __future__ import annotations

import numpy as np

from cflightning.data.fingerprint import COLUMNS, digest_parts, digest_table
from cflightning.data.splits.split import Split
from cflightning.data.table import RatingTable
from cflightning.utils.distributed import compare, gather, in_group


def check_same_table(table: RatingTable, split: Split | None) -> None:
    """Refuse processes that have read different tables or the same rows in another order, or cut them differently.

    Every process must call this; outside of a process group it does nothing. It reads every column once.

    Args:
        table: as read by this process.
        split: its parts, if it is to be cut.

    Raises:
        ConfigError: names the first process that differs from the first one.
    """
    if not in_group():
        return

    def explain(rank: int) -> str:
        found = gather((len(table), digest_table(table.take(_sorted_rows(table)))))
        (rows, _), (own_rows, _) = found[0], found[rank]
        if found[0] == found[rank]:
            return "the same rows in another order; give every process the same file"
        counts = f"{own_rows:,} rows instead of {rows:,}" if rows != own_rows else f"other values in its {rows:,} rows"
        return f"{counts}; give every process the same file"

    compare(f"table ({table.name})", table.fingerprint, explain)
    if split is not None:
        text = "other parts; give every process the same --data.split, --data.seed and fractions"
        compare("split of the table", digest_parts(split.parts), lambda _: text)


def _sorted_rows(table: RatingTable) -> np.ndarray:
    """Rows in an order that depends on their content alone."""
    more = [column for name in COLUMNS if (column := getattr(table, name)) is not None]
    return np.lexsort([*more, table.item.codes, table.user.codes])
