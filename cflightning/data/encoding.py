"""Encoding of the parts of a table by a vocabulary: columns of indices, and the items of each user."""

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
    """Held-out users with their fold-in items and their relevant items, without unknown items.

    Attributes:
        users: int64 [users], or object [users] holding str; ids, ascending.
        fold_in_items: Items from which the vectors of the users are computed; a user may have none.
        relevant: Items to recommend; a user may have none.
    """

    users: np.ndarray
    fold_in_items: Csr
    relevant: Csr

    def __repr__(self) -> str:
        return f"HeldOutUsers({len(self.users):,} users, fold-in {self.fold_in_items!r}, relevant {self.relevant!r})"


def encode(
    table: RatingTable, split: Split, part: int, vocabulary: Vocabulary
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return user indices, item indices and ratings of a part: int32 [n] twice, float32 [n]; NaN without ratings.

    The columns are filled chunk by chunk, so a huge table needs no memory beside them.
    """
    n = int(np.count_nonzero(split.parts == part))
    user, item, rating = np.empty(n, np.int32), np.empty(n, np.int32), np.full(n, np.nan, np.float32)
    columns = [
        (out, ids.indices(column.ids.values).astype(np.int32), column.codes)
        for out, ids, column in ((user, vocabulary.users, table.user), (item, vocabulary.items, table.item))
    ]
    begin = 0
    for rows in split.chunks(part):
        end = begin + len(rows)
        for out, index_of_code, codes in columns:
            out[begin:end] = index_of_code[codes[rows]]
        if table.rating is not None:
            rating[begin:end] = table.rating[rows]
        begin = end
    return user, item, rating


def count_unknown(user: np.ndarray, item: np.ndarray) -> int:
    """Count the rows with an unknown user or item: int32 [n] twice."""
    return sum(
        int(np.count_nonzero((user[start : start + CHUNK] == 0) | (item[start : start + CHUNK] == 0)))
        for start in range(0, len(user), CHUNK)
    )


def interactions(table: RatingTable, split: Split, parts: tuple[int, ...], vocabulary: Vocabulary) -> Csr:
    """Return the items of each user in some parts together; rows with an unknown user or item are left out.

    Raises:
        DataError: There are rows, and none has a known user and a known item.
    """
    columns = [encode(table, split, part, vocabulary)[:2] for part in parts]
    user, item = (np.concatenate(column) for column in zip(*columns, strict=True))
    if unknown := count_unknown(user, item):
        if unknown == len(user):
            raise DataError(
                f"{table.name}: must have rows to rank whose user and item are known from training, got none of "
                f"{unknown:,}; are both tables of one data set? (Held-out users are returned by held_out_users.)"
            )
        log.debug("%s: %d of %d rows have an id not seen in training: left out", table.name, unknown, len(user))
    known = user > 0  # item_sets leaves unknown items out
    sizes = vocabulary.users.num_embeddings, vocabulary.items.num_embeddings
    return item_sets(torch.from_numpy(user[known]), torch.from_numpy(item[known]), *sizes)


def held_out_users(table: RatingTable, split: Split, part: int, vocabulary: Vocabulary) -> HeldOutUsers:
    """Return the held-out users of a part, VAL or TEST."""
    present = np.unique(table.user.codes[split.parts == part])
    position = np.full(len(table.user.ids), -1, np.int64)
    position[present] = np.arange(len(present))
    item = vocabulary.items.indices_of(table.item)

    def items_in(wanted: int) -> Csr:
        rows = np.flatnonzero(split.parts == wanted)
        user = position[table.user.codes[rows]]
        rows, user = rows[user >= 0], user[user >= 0]
        sizes = len(present), vocabulary.items.num_embeddings
        return item_sets(torch.from_numpy(user), torch.from_numpy(item[rows]), *sizes)

    return HeldOutUsers(table.user.ids.values[present], items_in(FOLD_IN), items_in(part))
