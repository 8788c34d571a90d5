"""What makes vectors that rank, a pass at a time: sampled negatives, alternating least squares, or an SVD."""

from cflightning.objectives.base import Pairs, Ranker, compiled
from cflightning.objectives.bce import STD, Logistic, default_l2
from cflightning.objectives.ials import Alternating, default_weight
from cflightning.objectives.softmax import Softmax, default_temperature
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
    "default_l2",
    "default_temperature",
    "default_weight",
]

Ranker.known.update({"bce": Logistic, "softmax": Softmax, "ials": Alternating, "svd": Spectral})
