"""What makes vectors that rank, a pass at a time: sampled negatives, alternating least squares, or an SVD."""

from cflightning.tasks.rankers.alternating import Alternating, usual_weight
from cflightning.tasks.rankers.logistic import STD, Logistic, usual_l2
from cflightning.tasks.rankers.ranker import Pairs, Ranker, compiled
from cflightning.tasks.rankers.softmax import Softmax, usual_temperature
from cflightning.tasks.rankers.spectral import Spectral

__all__ = [
    "STD",
    "Alternating",
    "Logistic",
    "Pairs",
    "Ranker",
    "Softmax",
    "Spectral",
    "compiled",
    "usual_l2",
    "usual_temperature",
    "usual_weight",
]

Ranker.known.update({"bce": Logistic, "softmax": Softmax, "ials": Alternating, "svd": Spectral})
