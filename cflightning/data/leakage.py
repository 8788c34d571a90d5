"""Rejection of data whose validation or test rows a checkpoint may have been trained on."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.fingerprint import digest_parts
from cflightning.data.provenance import Provenance
from cflightning.data.splits.options import SplitOptions
from cflightning.data.splits.split import TEST, TRAIN, VAL, split_table
from cflightning.errors import DataError
from cflightning.utils.text import truncate_start

Use = Literal["fit", "validate", "test"]
MEASURED = {"test": (TEST,), "validate": (VAL,), "fit": (TEST, VAL)}
"""Use -> parts whose metrics it reports."""


def check_rows(trained_on: Provenance, data: RatingsDataModule, use: Use) -> None:
    """Refuse data whose rows the checkpoint may have been trained on, or, for `fit`, another table by mistake.

    Rows are new to the checkpoint if the table and its split are the same, if the table is the training table with a
    test table beside it, or if both splits use the same hash.

    Args:
        trained_on: Provenance of the checkpoint.
        data: The data to use.
        use: Use of the data.

    Raises:
        DataError: The table is another one, or rows to be measured were or may have been trained on.
    """
    same = trained_on.fingerprint == data.table.fingerprint
    if same and trained_on.parts == digest_parts(data.split.parts):
        return
    table, description = data.table.name, f"{trained_on.rows:,} rows of {truncate_start(trained_on.name, 100)}"
    if use == "fit" and not same and not data.other_data:
        raise DataError(
            f"{table}: must be the table that the checkpoint was trained on, {description}, but its "
            f"{len(data.table):,} rows are others or in another order; name that table by --data.path, train again "
            "without --ckpt_path, or continue with other rows by --data.other_data true (into a new run; needs "
            "--data.split.method hash in both)"
        )
    before, parts = parts_before(trained_on, data), data.split.parts
    if before is not None:
        for part, name, seen in ((TEST, "test", (TRAIN, VAL)), (VAL, "validation", (TRAIN,))):
            rows = parts == part
            leaked = int(np.count_nonzero(rows & np.isin(before, seen))) if part in MEASURED[use] else 0
            if leaked:
                raise DataError(
                    f"{table}: the checkpoint was trained on {leaked:,} of {np.count_nonzero(rows):,} {name} rows, "
                    f"since the split is another one ({data.split_method}, seed {data.seed}; the checkpoint's: "
                    f"{_describe(trained_on)}); leave the split options out to use those of the checkpoint"
                )
        return
    if not any(np.any(parts == part) for part in MEASURED[use]) or _use_same_hash(trained_on, data, use):
        return
    raise DataError(
        f"{table}: its {'test' if use == 'test' else 'validation'} part may hold rows that the checkpoint was "
        f"trained on, since its {len(data.table):,} rows are not the {description}, or in another order, and the split "
        f"({data.split_method}, seed {data.seed}) chooses others; give that table, or new rows beside it as "
        "--data.test_path, or train again (without --ckpt_path) by --data.split.method hash, by which rows keep their "
        "part when a table grows"
    )


def parts_before(trained_on: Provenance, data: RatingsDataModule) -> np.ndarray | None:
    """Return the part that each row of a table had when a checkpoint was trained: uint8 [rows]; None if not known.

    The rows of a test table that the checkpoint has not seen have the part TEST.
    """
    table = data.table
    rows = np.ones(len(table), dtype=bool)
    if trained_on.fingerprint != table.fingerprint:
        if table.test_rows is None:
            return None
        rows = ~table.test_rows
        table = replace(table.take(rows), test_rows=None)
        if trained_on.fingerprint != table.fingerprint:
            return None
    try:
        split = split_table(table, _split_options(trained_on))
    except (DataError, TypeError, ValueError):
        return None
    if digest_parts(split.parts) != trained_on.parts:  # another version drew other random numbers
        return None
    parts = np.full(len(rows), TEST, dtype=np.uint8)
    parts[rows] = split.parts
    return parts


def _split_options(trained_on: Provenance) -> SplitOptions:
    """Return the split options of a checkpoint.

    Raises:
        ArgumentError: They are not options of this version, or outside their range.
        TypeError: There is no such option.
    """
    options = trained_on.settings.get("split")
    return SplitOptions(**options if isinstance(options, dict) else {})


def _use_same_hash(trained_on: Provenance, data: RatingsDataModule, use: Use) -> bool:
    """Return whether rows that are held out were held out from the checkpoint as well, by the same hash."""
    try:
        before = _split_options(trained_on)
    except (TypeError, ValueError):
        return False
    now = data.split_options
    if before.method != "hash" or data.split_method != "hash" or before.seed != now.seed:
        return False
    if use == "test":
        return now.test_fraction <= before.test_fraction
    if {before.val_method, now.val_method} - {"same", "hash"} or before.val_fraction is None:
        return False
    return now.test_fraction <= before.test_fraction and data.val_fraction <= before.val_fraction


def _describe(trained_on: Provenance) -> str:
    options = trained_on.settings.get("split")
    options = options if isinstance(options, dict) else {}
    return f"{str(options.get('method') or 'random')[:20]}, seed {str(options.get('seed'))[:20]}"
