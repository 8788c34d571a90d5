"""Fold-in by the encoder of a linear autoencoder: a user vector is the weighted sum of the encoder's rows of the items.

Users in training have the same sums, so a known user is folded in, from the items of training, to the trained vector.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cflightning.data.ids import Ids
from cflightning.errors import ExportError
from cflightning.models.network import DotProductTables


class AutoencoderFoldIn(NamedTuple):
    """The items, and the encoder.

    Attributes:
        ids: ids of the items.
        vectors: float32 [1 + items, dim], item vectors: the decoder.
        bias: float32 [1 + items], the global bias included.
        encoder: float32 [1 + items, dim]; zeros for the unknown item.
        user_bias: bias of every new user; no order depends on it.
        mean_user: float32 [dim], added (1 - sum of the weights) times if that sum is below 1, so that users with next
            to no interactions get popular items.
        weight_slope: difference of an item's weight in the sum from 1, by that of its input. Below 1 where the input is
            twice the position of a rating in its range and ratings weighed less in training.
    """

    ids: Ids
    vectors: NDArray[np.float32]
    bias: NDArray[np.float32]
    encoder: NDArray[np.float32]
    user_bias: float
    mean_user: NDArray[np.float32]
    weight_slope: float = 1.0

    def user_vector(self, index: NDArray[np.int64], weight: NDArray[np.float32]) -> NDArray[np.float64]:
        """Sum the encoder's rows.

        Args:
            index: int64 [n], chosen items.
            weight: float32 [n], inputs of their weights, above 0; NaN stands for 1.

        Returns:
            float64 [dim + 1], factors and then bias.
        """
        weights = self.weights(weight)
        missing = max(1.0 - float(weights.sum()), 0.0)
        factors = weights @ self.encoder[index].astype(np.float64) + missing * self.mean_user
        return np.append(factors, self.user_bias)

    def weights(self, weight: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the weights of items in the sum by their inputs; NaN stands for 1."""
        return 1 + self.weight_slope * (np.where(np.isnan(weight), 1.0, weight.astype(np.float64)) - 1)

    def scores(self, vector: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the scores by a user vector, float64 [dim + 1], of all items: float64 [1 + items]."""
        scores: NDArray[np.float64] = self.vectors @ vector[:-1] + vector[-1] + self.bias
        return scores


def autoencoder_fold_in(
    encoder: NDArray[np.float32], tables: DotProductTables, ids: Ids, weight_slope: float = 1.0
) -> AutoencoderFoldIn:
    """Return how the network that recommends folds in new users by its encoder, float32 [1 + items, dim].

    Raises:
        ExportError: the unknown item has a row other than zeros.
    """
    if encoder[0].any():
        raise ExportError("encoder: row 0, that of the unknown item, must be zero, got other numbers; train again")
    return AutoencoderFoldIn(
        ids,
        tables.item_vectors.numpy(),
        tables.item_bias.numpy() + np.float32(tables.global_bias),
        encoder,
        float(tables.user_bias[1:].mean()),
        tables.user_vectors[0].numpy(),  # the mean user, see `bundle_networks`
        weight_slope,
    )
