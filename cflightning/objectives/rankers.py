"""What makes vectors that rank, a pass at a time: sampled negatives, alternating least squares, or an SVD."""

from cflightning.objectives.base import Pairs, Ranker, compiled
from cflightning.objectives.bce import STD, Logistic, usual_l2
from cflightning.objectives.ials import Alternating, usual_weight
from cflightning.objectives.softmax import Softmax, usual_temperature
from cflightning.objectives.svd import Spectral

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
