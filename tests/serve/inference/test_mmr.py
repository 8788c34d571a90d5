"""Maximal marginal relevance, compared with a slow implementation."""

import numpy as np
import pytest

from cflightning_serve.inference.mmr import select_diverse


def reference(scores, vectors, k, diversity):
    """Select by comparing all pairs, in double precision."""
    scores, vectors = np.asarray(scores, float), np.asarray(vectors, float)
    low, high = scores.min(), scores.max()
    relevance = (scores - low) / (high - low) if high > low else np.ones(len(scores))

    def cosine(a, b):
        norms = np.linalg.norm(vectors[a]) * np.linalg.norm(vectors[b])
        return vectors[a] @ vectors[b] / norms if norms else 0.0

    selected = [0]
    while len(selected) < min(k, len(scores)):
        rest = [n for n in range(len(scores)) if n not in selected]
        values = [(1 - diversity) * relevance[n] - diversity * max(cosine(n, m) for m in selected) for n in rest]
        selected.append(rest[int(np.argmax(values))])
    return selected


@pytest.mark.parametrize("diversity", [0.1, 0.5, 0.9, 1.0])
def test_selection_equals_the_slow_implementation(diversity):
    rng = np.random.default_rng(3)
    for count in (1, 2, 30):
        scores = np.sort(rng.normal(size=count).astype(np.float32))[::-1]
        vectors = rng.normal(size=(count, 5)).astype(np.float32)
        vectors[count // 2] = 0
        for k in (1, 7, 50):
            assert select_diverse(scores, vectors, k, diversity).tolist() == reference(scores, vectors, k, diversity)


def test_a_duplicate_of_the_best_item_is_selected_last():
    scores = np.array([5, 4.9, 3, 1], np.float32)
    vectors = np.array([[1, 0], [1, 0], [0, 1], [-1, 0]], np.float32)
    assert select_diverse(scores, vectors, 4, 0.5).tolist() == [0, 3, 2, 1]
    assert select_diverse(scores, vectors, 4, 0.01).tolist() == [0, 1, 2, 3]


def test_equal_candidates_are_selected_in_order_and_none_from_none():
    assert select_diverse(np.ones(3, np.float32), np.ones((3, 2), np.float32), 3, 0.5).tolist() == [0, 1, 2]
    assert select_diverse(np.empty(0, np.float32), np.empty((0, 2), np.float32), 4, 0.5).tolist() == []
