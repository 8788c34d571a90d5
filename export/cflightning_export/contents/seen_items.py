"""Rows of the users: all rows of the table, and which of them were training rows."""

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
    """The rows of known users and items, sorted by user, then training rows first, then by item.

    Attributes:
        user: int32 [n], indices.
        item: int32 [n], indices.
        trained: bool [n], whether it is a training row.
        rating: float32 [n], as in `TrainingRows`; 0 for other rows.
    """

    user: np.ndarray
    item: np.ndarray
    trained: np.ndarray
    rating: np.ndarray

    def of(self, user: int) -> np.ndarray:
        """Return the numbers of the rows of a user index: int64 [m]."""
        edges = np.array([user, user + 1], self.user.dtype)  # another dtype would convert all rows
        return np.arange(*np.searchsorted(self.user, edges))


def seen_rows(data: RatingsDataModule, vocabulary: Vocabulary, training: TrainingRows) -> SeenRows:
    """Return all rows: of the training, validation and test part, and those below the minimum rating.

    Args:
        data: data of the run.
        vocabulary: ids of the checkpoint; rows of other users and items are left out.
        training: the training rows.
    """
    table = data.table
    if data.load_options.min_rating is not None:  # a disliked item is a seen one
        table = load_interactions(replace(data.load_options, min_rating=None), data.split_options)
    user, item, _ = encode(table, Split(np.zeros(len(table), np.uint8)), TRAIN, vocabulary)
    known = (user > 0) & (item > 0)
    trained_pairs = _pair_numbers(training.user, training.item, vocabulary)
    pairs = _distinct(_pair_numbers(user[known], item[known], vocabulary), trained_pairs)
    trained = np.zeros(len(pairs), bool)
    trained[np.searchsorted(pairs, trained_pairs)] = True
    user = (pairs // vocabulary.items.num_embeddings).astype(np.int32)
    order = np.lexsort((~trained, user))  # stable: items stay sorted
    item = (pairs[order] % vocabulary.items.num_embeddings).astype(np.int32)
    rating = np.zeros(len(pairs), np.float32)
    rating[trained[order]] = training.rating
    return SeenRows(user, item, trained[order], rating)


def _distinct(*parts: np.ndarray) -> np.ndarray:
    """Return the distinct numbers of all parts, sorted, which takes less memory than numpy's hashing."""
    numbers = np.concatenate(parts)
    numbers.sort()
    first = np.ones(len(numbers), bool)
    first[1:] = numbers[1:] != numbers[:-1]
    return numbers[first]


def _pair_numbers(user: np.ndarray, item: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """Return one number for each pair, in the order of users and then items: int64 [n]."""
    numbers: np.ndarray = user.astype(np.int64) * vocabulary.items.num_embeddings + item
    return numbers
