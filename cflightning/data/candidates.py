"""Candidates to rank a test item among: the sampled protocol of leave-one-out."""

from __future__ import annotations

import logging
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cflightning.data.sources.leave_one_out import CandidateLists
from cflightning.data.table import RatingTable, pair_numbers
from cflightning.data.vocabulary import Vocabulary
from cflightning.errors import DataError

log = logging.getLogger(__name__)


class Candidates(NamedTuple):
    """A test item of each user and the negatives to rank it among (He et al. 2017, section 4.1).

    Attributes:
        user: int64 [users], rows; row 0 for one who is not in the vocabulary.
        item: int64 [users, 1 + negatives], rows, the test item first; row 0 for one that is not in the vocabulary.
        counted: bool [users, 1 + negatives]; False for a negative that is the test item itself or stands there before,
            and for whatever is row 0. A user whose own test item is row 0 cannot be ranked: who leaves such users out
            says so, who does not counts them as missed.
    """

    user: Tensor
    item: Tensor
    counted: Tensor


def find_candidates(
    lists: CandidateLists, table: RatingTable, test: np.ndarray, vocabulary: Vocabulary, *, fewer: bool = False
) -> Candidates:
    """Candidate lists of the test rows, in the order of the file, by the rows of a vocabulary.

    Args:
        lists: as they were read.
        table: with the test rows.
        test: bool [rows] or row numbers, which of them test.
        vocabulary: what the model knows.
        fewer: whether lists of pairs that do not test are left out instead of refused (rows were left out, too).

    Raises:
        DataError: a user of the lists is unknown, a list is of no test row, or a test row has no list.
    """
    user = table.user.ids.rows_of(lists.user).astype(np.int64)
    item = table.item.ids.rows_of(lists.item)[:: lists.width]
    if len(unknown := np.flatnonzero(user == 0)):
        raise _offence(lists, unknown, "users must be those of the train and test table")
    tested = pair_numbers(table)[test]
    pairs = np.where(item > 0, (user - 1) * len(table.item.ids) + item - 1, -1)
    keep = np.isin(pairs, tested)
    if not fewer and not keep.all():
        raise _offence(lists, np.flatnonzero(~keep), "pairs must be those of the test table")
    missing = int(np.count_nonzero(~np.isin(tested, pairs)))
    repeated = int(np.count_nonzero(keep)) - len(np.unique(pairs[keep]))
    if missing or repeated:
        raise DataError(
            f"{lists.file}: must have one line for each of {len(tested):,} test rows, got {missing:,} without and "
            f"{repeated:,} repeated; it is probably cut off: download it again"
        )
    users = torch.from_numpy(vocabulary.users.rows_of(lists.user)[keep]).long()
    items = torch.from_numpy(vocabulary.items.rows_of(lists.item).reshape(-1, lists.width)[keep]).long()
    own = items[:, 1:] == items[:, :1]
    counted = items > 0
    counted[:, 1:] &= ~own & ~_repeated(items[:, 1:])
    among = int((own & (items[:, :1] > 0)).any(1).sum())
    log.info("%s: %d test items with %d negatives each, %d of them among their own negatives and dropped there",
             lists.file, len(items), items.shape[1] - 1, among)  # fmt: skip
    if unseen := int((items == 0).sum()):
        log.warning("%s: %d test items and %d negatives are not known from training and no candidates",
                    lists.file, int((items[:, 0] == 0).sum()), unseen - int((items[:, 0] == 0).sum()))  # fmt: skip
    return Candidates(users, items, counted)


def _repeated(items: Tensor) -> Tensor:
    """Which items of a row stand there before: bool [users, n]."""
    ordered, order = items.sort(dim=1, stable=True)
    again = torch.zeros_like(ordered, dtype=torch.bool)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    return torch.empty_like(again).scatter_(1, order, again)


def _offence(lists: CandidateLists, rows: np.ndarray, must: str) -> DataError:
    pairs = zip(lists.user.take(rows[:3]).values, lists.item.take(rows[:3] * lists.width).values, strict=True)
    shown = ", ".join(f"({user},{item})" for user, item in pairs) + (", …" if len(rows) > 3 else "")
    return DataError(f"{lists.file}: {must}, got {len(rows):,} others ({shown}); are they of one data set?")
