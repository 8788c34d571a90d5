"""The rows of a part by the rows of a vocabulary: as columns to train on, and as lists of items to rank by."""

from __future__ import annotations

import logging
from typing import NamedTuple

import numpy as np
import torch

from cflightning.data.splits.split import CHUNK, FOLD_IN, Split
from cflightning.data.table import RatingTable
from cflightning.data.vocabulary import Vocabulary
from cflightning.errors import DataError
from cflightning.utils.csr import Csr, item_sets

log = logging.getLogger(__name__)


class HeldOutUsers(NamedTuple):
    """Users whom the training part does not know, by what is given of them and what is to be found.

    Items that are not in the vocabulary are in neither; a user may have none left.

    Attributes:
        users: int64 [users], or object [users] holding str; ids, ascending.
        given: items to know them by, of the same users.
        held_out: items to find, of the same users.
    """

    users: np.ndarray
    given: Csr
    held_out: Csr

    def __repr__(self) -> str:
        return f"HeldOutUsers({len(self.users):,} users, given {self.given!r}, held out {self.held_out!r})"


def encode(
    table: RatingTable, split: Split, part: int, vocabulary: Vocabulary
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows and ratings of a part: int32 [n] twice, float32 [n]; NaN where there are no ratings.

    Filled chunk by chunk, so that a huge table needs no memory but theirs.
    """
    n = int(np.count_nonzero(split.parts == part))
    user, item, rating = np.empty(n, np.int32), np.empty(n, np.int32), np.full(n, np.nan, np.float32)
    sides = [
        (out, ids.rows(column.ids.values).astype(np.int32), column.codes)
        for out, ids, column in ((user, vocabulary.users, table.user), (item, vocabulary.items, table.item))
    ]
    begin = 0
    for rows in split.chunks(part):
        end = begin + len(rows)
        for out, row_of_code, codes in sides:
            out[begin:end] = row_of_code[codes[rows]]
        if table.rating is not None:
            rating[begin:end] = table.rating[rows]
        begin = end
    return user, item, rating


def count_unknown(user: np.ndarray, item: np.ndarray) -> int:
    """How many rows hold an unknown user or item, of int32 [n] twice; chunk by chunk as well."""
    return sum(
        int(np.count_nonzero((user[at : at + CHUNK] == 0) | (item[at : at + CHUNK] == 0)))
        for at in range(0, len(user), CHUNK)
    )


def interactions(table: RatingTable, split: Split, parts: tuple[int, ...], vocabulary: Vocabulary) -> Csr:
    """Items of every user row in some parts together; rows with an unknown user or item are left out.

    Raises:
        DataError: there are rows, and none has a known user and a known item.
    """
    columns = [encode(table, split, part, vocabulary)[:2] for part in parts]
    user, item = (np.concatenate(side) for side in zip(*columns, strict=True))
    if unknown := count_unknown(user, item):
        if unknown == len(user):
            raise DataError(
                f"{table.name}: must have rows to rank whose user and item are known from training, got none of "
                f"{unknown:,}; are both tables of one data set? (Users held out whole are in held_out_users.)"
            )
        log.debug("%s: %d of %d rows hold an id not seen in training: left out", table.name, unknown, len(user))
    known = user > 0  # item_sets looks for unknown items itself
    sizes = vocabulary.users.num_rows, vocabulary.items.num_rows
    return item_sets(torch.from_numpy(user[known]), torch.from_numpy(item[known]), *sizes)


def held_out_users(table: RatingTable, split: Split, part: int, vocabulary: Vocabulary) -> HeldOutUsers:
    """The users of a part, VAL or TEST, of whom other rows are given."""
    present = np.unique(table.user.codes[split.parts == part])
    place = np.full(len(table.user.ids), -1, np.int64)
    place[present] = np.arange(len(present))
    item = vocabulary.items.rows_of(table.item)

    def lists(wanted: int) -> Csr:
        rows = np.flatnonzero(split.parts == wanted)
        user = place[table.user.codes[rows]]
        rows, user = rows[user >= 0], user[user >= 0]
        return item_sets(torch.from_numpy(user), torch.from_numpy(item[rows]), len(present), vocabulary.items.num_rows)

    return HeldOutUsers(table.user.ids.values[present], lists(FOLD_IN), lists(part))
