"""Fold-in from implicit feedback: the user vector that implicit ALS computes with the item vectors fixed.

The vector p minimises, over the chosen items S with weights c and over all I items::

    sum over S of c_i (1 - <p, q_i>)^2 + weight * sum over all i of <p, q_i>^2 + l2 * (n + weight * I)^exponent |p|^2
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cflightning.data.ids import Ids
from cflightning.models.network import DotProductTables
from cflightning.tasks.base import NetworkTask


class ImplicitFoldIn(NamedTuple):
    """The items, and the settings of implicit ALS.

    Attributes:
        ids: ids of the items.
        vectors: float32 [1 + items, dim].
        bias: float32 [1 + items], the global bias included.
        weight: weight of every item, chosen or not, for vectors divided by `unit`.
        l2: L2 penalty.
        exponent: exponent of the penalty's growth with the number of chosen items.
        unit: length by which item vectors are divided first.
        length: norm to which solutions are scaled, times the sum of the weights if that is below 1; None keeps the
            norm of the minimum.
        user_bias: bias of every new user; no order depends on it.
        mean_user: float32 [dim], added (1 - sum of the weights) times if that sum is below 1, so that users with next
            to no interactions get popular items; None for zeros.
    """

    ids: Ids
    vectors: NDArray[np.float32]
    bias: NDArray[np.float32]
    weight: float
    l2: float
    exponent: float
    unit: float
    length: float | None
    user_bias: float
    mean_user: NDArray[np.float32] | None = None

    def axes(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the eigenvalues of weight * Q'Q, float64 [dim], and its eigenvectors, float64 [dim, dim]."""
        vectors = self.vectors.astype(np.float64) / self.unit
        values, axes = np.linalg.eigh(self.weight * vectors.T @ vectors)
        return np.maximum(values, 0.0), axes

    def user_vector(self, index: NDArray[np.int64], weight: NDArray[np.float32]) -> NDArray[np.float64]:
        """Solve the normal equations for a user.

        Args:
            index: int64 [n], chosen items.
            weight: float32 [n], their weights c, above 0; NaN stands for 1.

        Returns:
            float64 [dim + 1], factors and then bias.
        """
        vectors = self.vectors.astype(np.float64) / self.unit
        chosen, c = vectors[index], np.where(np.isnan(weight), 1.0, weight.astype(np.float64))
        ridge = self.l2 * (len(index) + self.weight * len(self.ids)) ** self.exponent
        curvature = (
            chosen.T @ (chosen * c[:, None]) + self.weight * vectors.T @ vectors + ridge * np.eye(vectors.shape[1])
        )
        factors: NDArray[np.float64] = np.linalg.solve(curvature, chosen.T @ c) / self.unit
        own_part = min(float(c.sum()), 1.0)
        if self.length is not None and factors.any():
            factors *= own_part * self.length / np.linalg.norm(factors)
        if self.mean_user is not None:
            factors += (1.0 - own_part) * self.mean_user
        return np.append(factors, self.user_bias)

    def scores(self, vector: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the scores by a user vector, float64 [dim + 1], of all items: float64 [1 + items]."""
        scores: NDArray[np.float64] = self.vectors @ vector[:-1] + vector[-1] + self.bias
        return scores


def implicit_fold_in_for(task: NetworkTask, tables: DotProductTables, ids: Ids) -> ImplicitFoldIn:
    """Return how the network that recommends folds in new users.

    A network of implicit ALS uses its own settings. For any other, item vectors are scaled to a mean length of 1, as in
    the initialisation of implicit ALS, and solutions to the mean length of a trained user vector.
    """
    weights = task.bundle_fold_in_settings(len(ids) + 1)
    unit, length = 1.0, None
    if weights.rescale:
        unit = _mean_length(tables.item_vectors.double().numpy())
        length = _mean_length(tables.user_vectors.double().numpy())
    return ImplicitFoldIn(
        ids,
        tables.item_vectors.numpy(),
        tables.item_bias.numpy() + np.float32(tables.global_bias),
        weights.weight,
        weights.l2,
        weights.exponent,
        unit,
        length,
        float(tables.user_bias[1:].mean()),
        tables.user_vectors[0].numpy(),  # the mean user, see `bundle_networks`
    )


def _mean_length(vectors: NDArray[np.float64]) -> float:
    lengths = np.linalg.norm(vectors[1:], axis=1)
    return float(lengths[lengths > 0].mean()) if lengths.any() else 1.0
