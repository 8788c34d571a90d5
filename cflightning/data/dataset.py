"""`RatingsDataset`: a table with its split and its vocabulary."""

from __future__ import annotations

import logging

import numpy as np

from cflightning.data import encoding
from cflightning.data.candidates import SampledCandidates, encode_candidates
from cflightning.data.load import LoadOptions, load_candidate_lists, load_interactions, load_rows_to_score
from cflightning.data.splits.options import Method, SplitOptions
from cflightning.data.splits.split import TRAIN, VAL, VAL_FRACTION, Split, choose_method, split_table
from cflightning.data.summary import describe_table
from cflightning.data.table import RatingTable
from cflightning.data.vocabulary import Vocabulary
from cflightning.errors import DataError
from cflightning.utils.csr import Csr

log = logging.getLogger(__name__)


class RatingsDataset:
    """A table of ratings or interactions, loaded, split and encoded when first needed.

    Args:
        load_options: Source of the table and what its rows mean.
        split_options: Division into training, validation and test part.
    """

    def __init__(self, load_options: LoadOptions, split_options: SplitOptions) -> None:
        super().__init__()
        self.load_options = load_options
        self.split_options = split_options
        self._table: RatingTable | None = None
        self._split: Split | None = None
        self._rows_to_score: RatingTable | None = None
        self._learned_vocabulary: Vocabulary | None = None
        self._borrowed_vocabulary: Vocabulary | None = None

    @property
    def table(self) -> RatingTable:
        """All ratings or interactions, checked and without duplicates. Set it to use a table that is loaded already."""
        if self._table is None:
            self._table = load_interactions(self.load_options, self.split_options)
        return self._table

    @table.setter
    def table(self, table: RatingTable) -> None:
        self._table = table

    @property
    def rows_to_score(self) -> RatingTable:
        """Every row of the table as it is, without ratings."""
        if self._rows_to_score is None:
            self._rows_to_score = load_rows_to_score(self.load_options, self.split_options)
        return self._rows_to_score

    @property
    def split_method(self) -> Method:
        """Method of the test part."""
        return choose_method(self.table, self.split_options)

    @property
    def split(self) -> Split:
        """The part of every row. Set it to use a split of the same table that was made already."""
        if self._split is None:
            self._split = split_table(self.table, self.split_options)
            few = self.split_options.val_fraction is None and not self._split.sizes[VAL]
            log.info("%s; %d train, %d val, %d test (%s)%s", describe_table(self.table), *self._split.sizes,
                     self.split_method,
                     "; too few rows for a validation part: all of them train" if few else "")  # fmt: skip
        return self._split

    @split.setter
    def split(self, split: Split) -> None:
        self._split = split

    @property
    def val_fraction(self) -> float:
        """Share of the rows outside of the test part that validate."""
        if self.split_options.val_fraction is not None:
            return float(self.split_options.val_fraction)
        return VAL_FRACTION if self.split.sizes[VAL] else 0.0

    @property
    def vocabulary(self) -> Vocabulary:
        """Ids of the training part, unless that of a checkpoint was set; None removes it again."""
        if self._borrowed_vocabulary is not None:
            return self._borrowed_vocabulary
        if self._learned_vocabulary is None:
            self._learned_vocabulary = Vocabulary.learn(self.table, self.split.parts == TRAIN)
        return self._learned_vocabulary

    @vocabulary.setter
    def vocabulary(self, vocabulary: Vocabulary | None) -> None:
        self._borrowed_vocabulary = vocabulary

    @property
    def num_users(self) -> int:
        """Number of user embeddings, the unknown user included."""
        return self.vocabulary.users.num_embeddings

    @property
    def num_items(self) -> int:
        """Number of item embeddings, the unknown item included."""
        return self.vocabulary.items.num_embeddings

    @property
    def rating_range(self) -> tuple[float, float]:
        """Lowest and highest rating, by the options or else observed in the training part.

        Raises:
            DataError: All ratings of the training part are equal.
        """
        if self.load_options.given_rating_range is not None:
            return self.load_options.given_rating_range
        ratings = self.table.ratings[self.split.parts == TRAIN]
        low, high = float(ratings.min()), float(ratings.max())
        if low == high:
            raise DataError(
                f"{self.table.name}: ratings must differ to be learned from, but all {len(ratings):,} "
                f"of the training part are {low:g}; if that is intended, give --data.rating_range"
            )
        return low, high

    @property
    def mean_rating(self) -> float:
        """Mean rating of the training part."""
        return float(self.table.ratings.mean(dtype=np.float64, where=self.split.parts == TRAIN))

    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the training rows of each user and each item: int64 [num_users], int64 [num_items]."""
        user, item = self.training_pairs()
        return np.bincount(user, minlength=self.num_users), np.bincount(item, minlength=self.num_items)

    def training_pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Return user and item indices of the training part: int32 [n] twice."""
        user, item, _ = encoding.encode(self.table, self.split, TRAIN, self.vocabulary)
        return user, item

    def training_weights(self) -> np.ndarray | None:
        """Return the weights of `training_pairs`: float32 [n]; None where all are equal."""
        weight = self.table.weight
        return None if weight is None else weight[self.split.parts == TRAIN]

    def training_ratings(self) -> np.ndarray | None:
        """Return the ratings of `training_pairs` as positions in the rating range: float32 [n], from 0 to 1.

        None without ratings, or if all are equal.
        """
        if self.table.rating is None:
            return None
        ratings = self.table.ratings[self.split.parts == TRAIN]
        low, high = self.load_options.given_rating_range or (float(ratings.min()), float(ratings.max()))
        return ((ratings - low) / (high - low)).clip(0, 1).astype(np.float32) if low < high else None

    def validation_ratings(self, max_rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return user indices, item indices and ratings of the validation part: int32 [n] twice, float32 [n].

        Args:
            max_rows: Maximum number of rows, which are evenly spaced; there may be none.
        """
        step = max(-(-self.split.sizes[VAL] // max_rows), 1)
        user, item, rating = encoding.encode(self.table, self.split, VAL, self.vocabulary)
        return user[::step], item[::step], rating[::step]

    def interactions(self, part: int, *more: int) -> Csr:
        """Return the items of each user in some parts together.

        TRAIN (and VAL) has the seen items, TEST the relevant ones. Rows with an unknown user or item are left out.

        Args:
            part: TRAIN, VAL or TEST.
            more: Other parts.
        """
        return encoding.interactions(self.table, self.split, (part, *more), self.vocabulary)

    def held_out_users(self, part: int) -> encoding.HeldOutUsers:
        """Return the held-out users of a part, VAL or TEST, with their fold-in items and their relevant items.

        Raises:
            DataError: The split is by another method than `users`.
        """
        if self.split_method != "users":
            raise DataError(f"--data.split.method: must be users to hold out users, got {self.split_method}")
        return encoding.held_out_users(self.table, self.split, part, self.vocabulary)

    @property
    def candidates(self) -> SampledCandidates | None:
        """Candidates for sampled metrics; None except for a leave-one-out folder with its own test part."""
        lists = load_candidate_lists(self.load_options) if self.split_method == "predefined" else None
        if lists is None:
            return None
        subset = self.load_options.min_rating is not None
        return encode_candidates(lists, self.table, self.split.test, self.vocabulary, subset=subset)
