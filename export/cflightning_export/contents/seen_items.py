"""The rows of users: every row that the table held, and which of them the model was trained on."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.encoding import encode
from cflightning.data.load import load_interactions
from cflightning.data.splits.split import TRAIN, Split
from cflightning.data.vocabulary import Vocabulary
from cflightning_export.contents.training_data import TrainingRows


class SeenRows(NamedTuple):
    """The rows of known users and items, by user; the training rows of a user first, each part in the order of items.

    Attributes:
        user: int32 [n], rows.
        item: int32 [n], rows.
        trained: bool [n], whether it is a training row.
        rating: float32 [n], as in `TrainingRows`; 0 for rows that are no training rows.
    """

    user: np.ndarray
    item: np.ndarray
    trained: np.ndarray
    rating: np.ndarray

    def of(self, user: int) -> np.ndarray:
        """Numbers of the rows of one user row: int64 [m]."""
        edges = np.array([user, user + 1], self.user.dtype)  # of another type they would convert all rows
        return np.arange(*np.searchsorted(self.user, edges))


def seen_rows(data: RatingsDataModule, vocabulary: Vocabulary, training: TrainingRows) -> SeenRows:
    """All rows of the table: of the training, validation and test part, and those that were rated too low to count.

    Args:
        data: of the run.
        vocabulary: of the checkpoint; rows of other users and items are left out.
        training: the training rows.
    """
    table = data.table
    if data.load_options.min_rating is not None:  # who disliked an item has seen it as well
        table = load_interactions(replace(data.load_options, min_rating=None))
    user, item, _ = encode(table, Split(np.zeros(len(table), np.uint8)), TRAIN, vocabulary)
    known = (user > 0) & (item > 0)
    trained_pairs = _pairs(training.user, training.item, vocabulary)
    pairs = _distinct(_pairs(user[known], item[known], vocabulary), trained_pairs)
    trained = np.zeros(len(pairs), bool)
    trained[np.searchsorted(pairs, trained_pairs)] = True
    user = (pairs // vocabulary.items.num_rows).astype(np.int32)
    order = np.lexsort((~trained, user))  # stable: items stay in order
    item = (pairs[order] % vocabulary.items.num_rows).astype(np.int32)
    rating = np.zeros(len(pairs), np.float32)
    rating[trained[order]] = training.rating
    return SeenRows(user, item, trained[order], rating)


def _distinct(*numbers: np.ndarray) -> np.ndarray:
    """The different ones of some numbers, ascending: by sorting, which takes less than numpy's hashing."""
    every = np.concatenate(numbers)
    every.sort()
    first = np.ones(len(every), bool)
    first[1:] = every[1:] != every[:-1]
    return every[first]


def _pairs(user: np.ndarray, item: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """One number for each pair, ascending by user row and then by item row: int64 [n]."""
    numbers: np.ndarray = user.astype(np.int64) * vocabulary.items.num_rows + item
    return numbers
