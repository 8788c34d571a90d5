"""Maximal marginal relevance (Carbonell & Goldstein 1998): top-k lists with dissimilar items."""

from typing import Any

import numpy as np
import numpy.typing as npt

from cflightning_serve.errors import InputError

MAX_FLOAT32_VALUE = 1e18
"""Largest score or vector norm whose square fits into float32."""


def check_diversity(diversity: float) -> float:
    """Return the weight of diversity as ``float``.

    Raises:
        InputError: the value is not a number from 0 to 1.
    """
    is_number = isinstance(diversity, (int, float, np.integer, np.floating))
    if isinstance(diversity, bool) or not is_number or not 0 <= diversity <= 1:  # also refuses NaN
        raise InputError(f"diversity: must be a number from 0 (scores only) to 1, got {diversity!r}")
    return float(diversity)


def candidate_count(k: int) -> int:
    """Return the number of candidates, the items with the highest scores, for a list of ``k``."""
    return max(100, 5 * k)


def select_diverse(
    scores: npt.NDArray[np.floating[Any]], vectors: npt.NDArray[np.floating[Any]], k: int, diversity: float
) -> npt.NDArray[np.int64]:
    """Select ``k`` candidates one after the other, each with the highest ``(1 - d) * relevance - d * similarity``.

    Relevance is the score, scaled linearly so that the candidates range from 0 to 1. Similarity is the largest cosine
    with an item that is already selected. Of equal candidates the first is selected.

    Args:
        scores: float32 [candidates], descending.
        vectors: float32 [candidates, dim], item factors.
        k: number of items.
        diversity: d, from 0 to 1.

    Returns:
        int64 [min(k, candidates)], indices of the candidates; the first is always 0.
    """
    if not len(scores):
        return np.empty(0, np.int64)
    with np.errstate(over="ignore"):
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    largest = max(np.abs(scores).max(), norms.max(initial=0))
    if largest > MAX_FLOAT32_VALUE and scores.dtype == np.float32:
        return select_diverse(scores.astype(np.float64), vectors.astype(np.float64), k, diversity)
    score_range = float(scores[0]) - float(scores[-1])
    relevance = (scores - scores[-1]) / np.float32(score_range) if score_range > 0 else np.ones_like(scores)
    unit_vectors = vectors / np.where(norms > 0, norms, 1)
    weighted_relevance = np.float32(1 - diversity) * relevance
    similarity = np.full(len(scores), -np.inf, scores.dtype)
    selected = np.zeros(min(k, len(scores)), np.int64)
    for position in range(1, len(selected)):
        previous = selected[position - 1]
        weighted_relevance[previous] = -np.inf  # not selected again
        np.maximum(similarity, unit_vectors @ unit_vectors[previous], out=similarity)
        selected[position] = np.argmax(weighted_relevance - np.float32(diversity) * similarity)
    return selected
