"""Lists whose items differ: maximal marginal relevance (Carbonell & Goldstein 1998)."""

from typing import Any

import numpy as np
import numpy.typing as npt

from cflightning_serve.errors import InputError

_LARGEST = 1e18
"""Scores and lengths of vectors whose squares float32 holds."""


def check_diversity(diversity: float) -> float:
    """Check the share that being different has.

    Raises:
        InputError: no number from 0 to 1.
    """
    number = isinstance(diversity, (int, float, np.integer, np.floating)) and not isinstance(diversity, bool)
    if not number or not 0 <= diversity <= 1:  # also refuses NaN
        raise InputError(f"diversity: must be a number from 0 (only scores) to 1, got {diversity!r}")
    return float(diversity)


def candidate_count(k: int) -> int:
    """How many of the best items a list of ``k`` is chosen from."""
    return max(100, 5 * k)


def choose(
    scores: npt.NDArray[np.floating[Any]], vectors: npt.NDArray[np.floating[Any]], k: int, diversity: float
) -> npt.NDArray[np.int64]:
    """Choose ``k`` of a pool, one after the other: each the best by ``(1 - d) * relevance - d * similarity``.

    Relevance is the score, moved and stretched so that the pool's lie from 0 to 1; similarity the largest cosine with
    an item that is already chosen. Among equals the one that stands first in the pool is taken.

    Args:
        scores: float32 [pool], descending.
        vectors: float32 [pool, dim], item factors.
        k: how many.
        diversity: d, from 0 to 1.

    Returns:
        int64 [min(k, pool)], places in the pool; the first is always 0.
    """
    if not len(scores):
        return np.empty(0, np.int64)
    with np.errstate(over="ignore"):
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if (
        max(np.abs(scores).max(), norms.max(initial=0)) > _LARGEST and scores.dtype == np.float32
    ):  # squares and differences leave float32
        return choose(scores.astype(np.float64), vectors.astype(np.float64), k, diversity)
    spread = float(scores[0]) - float(scores[-1])
    relevance = (scores - scores[-1]) / np.float32(spread) if spread > 0 else np.ones_like(scores)
    units = vectors / np.where(norms > 0, norms, 1)
    value = np.float32(1 - diversity) * relevance
    nearest = np.full(len(scores), -np.inf, scores.dtype)
    chosen = np.zeros(min(k, len(scores)), np.int64)
    for place in range(1, len(chosen)):
        before = chosen[place - 1]
        value[before] = -np.inf  # not twice
        np.maximum(nearest, units @ units[before], out=nearest)
        chosen[place] = np.argmax(value - np.float32(diversity) * nearest)
    return chosen
