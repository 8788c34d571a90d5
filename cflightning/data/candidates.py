"""Candidates for sampled metrics of a leave-one-out split."""

from __future__ import annotations

import logging
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cflightning.data.sources.leave_one_out import CandidateLists
from cflightning.data.table import RatingTable, pair_codes
from cflightning.data.vocabulary import Vocabulary
from cflightning.errors import DataError

log = logging.getLogger(__name__)


class SampledCandidates(NamedTuple):
    """The test item of each user and the negative samples among which it is ranked (He et al. 2017, section 4.1).

    Attributes:
        user: int64 [users], indices; 0 for an unknown user.
        item: int64 [users, 1 + negatives], indices, the test item first; 0 for an unknown item.
        valid: bool [users, 1 + negatives]; False for unknown items, for accidental hits and for repeated negatives. The
            metrics say whether users with an unknown test item are left out or count as missed.
    """

    user: Tensor
    item: Tensor
    valid: Tensor


def encode_candidates(
    lists: CandidateLists, table: RatingTable, test: np.ndarray, vocabulary: Vocabulary, *, subset: bool = False
) -> SampledCandidates:
    """Encode the candidate lists of the test rows, in the order of the file.

    Args:
        lists: The lists of the source.
        table: The table with the test rows.
        test: bool [rows] or positions of the test rows.
        vocabulary: Ids of the model.
        subset: Whether lists of other pairs are left out instead of refused, as some rows of the table were.

    Raises:
        DataError: A list has an unknown user or belongs to no test row, or a test row has no list.
    """
    user = table.user.ids.indices_of(lists.user).astype(np.int64)
    item = table.item.ids.indices_of(lists.item)[:: lists.width]
    if len(unknown := np.flatnonzero(user == 0)):
        raise _error(lists, unknown, "users must be those of the train and test table")
    tested = pair_codes(table)[test]
    pairs = np.where(item > 0, (user - 1) * len(table.item.ids) + item - 1, -1)
    keep = np.isin(pairs, tested)
    if not subset and not keep.all():
        raise _error(lists, np.flatnonzero(~keep), "pairs must be those of the test table")
    missing = int(np.count_nonzero(~np.isin(tested, pairs)))
    repeated = int(np.count_nonzero(keep)) - len(np.unique(pairs[keep]))
    if missing or repeated:
        raise DataError(
            f"{lists.file}: must have one line for each of {len(tested):,} test rows, got {missing:,} without and "
            f"{repeated:,} repeated; it is probably cut off: download it again"
        )
    users = torch.from_numpy(vocabulary.users.indices_of(lists.user)[keep]).long()
    items = torch.from_numpy(vocabulary.items.indices_of(lists.item).reshape(-1, lists.width)[keep]).long()
    accidental_hits = items[:, 1:] == items[:, :1]
    valid = items > 0
    valid[:, 1:] &= ~accidental_hits & ~_repeated(items[:, 1:])
    log.info("%s: %d test items with %d negatives each, %d of them among their own negatives and dropped there",
             lists.file, len(items), items.shape[1] - 1,
             int((accidental_hits & (items[:, :1] > 0)).any(1).sum()))  # fmt: skip
    if unknown_items := int((items == 0).sum()):
        unknown_tests = int((items[:, 0] == 0).sum())
        log.warning("%s: %d test items and %d negatives are not known from training and no candidates",
                    lists.file, unknown_tests, unknown_items - unknown_tests)  # fmt: skip
    return SampledCandidates(users, items, valid)


def _repeated(items: Tensor) -> Tensor:
    """Find items that occur earlier in their row: int64 [users, n] -> bool [users, n]."""
    ordered, order = items.sort(dim=1, stable=True)
    repeated = torch.zeros_like(ordered, dtype=torch.bool)
    repeated[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    return torch.empty_like(repeated).scatter_(1, order, repeated)


def _error(lists: CandidateLists, rows: np.ndarray, must: str) -> DataError:
    pairs = zip(lists.user.take(rows[:3]).values, lists.item.take(rows[:3] * lists.width).values, strict=True)
    shown = ", ".join(f"({user},{item})" for user, item in pairs) + (", …" if len(rows) > 3 else "")
    return DataError(f"{lists.file}: {must}, got {len(rows):,} others ({shown}); are they of one data set?")
