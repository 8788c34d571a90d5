"""The networks of a bundle, and the unit of their scores."""

from __future__ import annotations

from typing import NamedTuple

import torch

from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.models.network import ScoringNetwork
from cflightning.tasks.base import NetworkTask
from cflightning_serve.bundle.manifest import Unit


class BundleNetworks(NamedTuple):
    """The networks that the graphs of a bundle compute.

    Attributes:
        score: predicts scores of pairs.
        recommend: makes recommendations and similar items; it may be the same network.
        units: units of both, by name.
    """

    score: ScoringNetwork
    recommend: ScoringNetwork
    units: dict[str, Unit]


def bundle_networks(task: NetworkTask) -> BundleNetworks:
    """Return the networks of a task: ratings are scored and interactions recommended, if the task was trained for both.

    Networks of implicit feedback know nothing of an unknown user: the vector is zero, and most have no biases, so that
    all items would tie. The unknown user becomes the mean user, whose order of items is close to their popularity.

    Args:
        task: with its networks; the unknown user of a network of implicit feedback is changed in place.
    """
    network, recommender = task.network, task.recommender
    units: dict[str, Unit] = {"score": "rating", "recommend": "rating"}
    if task.predicts_rankings and isinstance(recommender, EmbeddingDot):
        units = {"score": "rating" if task.predicts_ratings else "choice", "recommend": "choice"}
        with torch.no_grad():
            for table in (recommender.user_factors.weight, recommender.user_bias.weight):
                table[0] = table[1:].mean(0, dtype=torch.float64)
    return BundleNetworks(network, recommender, units)
