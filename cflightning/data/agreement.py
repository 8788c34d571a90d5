"""Comparison of the tables that the processes of one training have read."""

from __future__ import annotations

import numpy as np

from cflightning.data.fingerprint import digest_parts
from cflightning.data.splits.split import Split
from cflightning.data.table import DIGESTED, RatingTable
from cflightning.utils.distributed import check_equal, gather, in_group


def check_same_table(table: RatingTable, split: Split | None) -> None:
    """Refuse processes whose tables differ in values or order, or whose splits differ.

    Every process must call this; outside of a process group it does nothing. It reads every column once.

    Args:
        table: The table that this process has read.
        split: Its parts; None to compare the tables alone.

    Raises:
        ConfigError: Names the first process that differs from process 0.
    """
    if not in_group():
        return

    def explain(rank: int) -> str:
        digests = gather((len(table), table.take(_canonical_order(table)).fingerprint))
        (first_rows, _), (rows, _) = digests[0], digests[rank]
        if digests[0] == digests[rank]:
            return "the same rows in another order; give every process the same file"
        same_size = f"other values in its {rows:,} rows"
        counts = same_size if rows == first_rows else f"{rows:,} rows instead of {first_rows:,}"
        return f"{counts}; give every process the same file"

    check_equal(f"table ({table.name})", table.fingerprint, explain)
    if split is not None:
        text = "other parts; give every process the same --data.split options"
        check_equal("split of the table", digest_parts(split.parts), lambda _: text)


def _canonical_order(table: RatingTable) -> np.ndarray:
    """Return positions in an order that depends on the content of the rows alone."""
    columns = [column for name in DIGESTED if (column := getattr(table, name)) is not None]
    return np.lexsort([*columns, table.item.codes, table.user.codes])
