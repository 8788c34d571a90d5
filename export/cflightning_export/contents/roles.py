"""Which network of a task answers which question, and in what unit."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch

from cflightning.models.network import RatingNetwork
from cflightning.tasks.ranking import RankingTask
from cflightning.tasks.rating import RatingTask

Unit = Literal["rating", "choice"]
"""Of a score: a rating's, or none, so that only the order says what somebody would choose."""


class Answering(NamedTuple):
    """What a bundle is made of.

    Attributes:
        networks: question -> network; `score`, `recommend` and `similar`.
        units: question -> unit; `score` and `recommend`.
    """

    networks: dict[str, RatingNetwork]
    units: dict[str, Unit]


def answering(task: RatingTask) -> Answering:
    """Ratings are scored and choices recommended, each where the task has learnt them.

    Networks of choices have no opinion of an unknown user: their vectors are zero, and most have no biases, so that all
    items would tie. The unknown row becomes the mean user, who orders the items much as their popularity does.

    Args:
        task: with its networks; the unknown row of a network of choices is changed in place.
    """
    network = recommender = task.network
    units: dict[str, Unit] = {"score": "rating", "recommend": "rating"}
    if isinstance(task, RankingTask) and task.predicts_rankings:
        recommender = task.recommender
        units = {"score": "rating" if task.predicts_ratings else "choice", "recommend": "choice"}
        with torch.no_grad():
            for table in (recommender.user_factors.weight, recommender.user_bias.weight):
                table[0] = table[1:].mean(0, dtype=torch.float64)
    return Answering({"score": network, "recommend": recommender, "similar": recommender}, units)
