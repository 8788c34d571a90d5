"""Top-k indices, compared with a stable sort."""

import numpy as np
import pytest

from cflightning_serve.inference.top_k import top_k_indices


@pytest.mark.parametrize("kind", ["normal", "ties", "negative ties", "zeros of both signs", "little left"])
@pytest.mark.parametrize(
    ("n", "m", "k"),
    [(5, 3706, 100), (3, 10, 4), (3, 10, 40), (4, 1000, 124), (4, 1000, 125), (0, 10, 3), (3, 7, 1), (2, 0, 3)],
)
def test_indices_equal_those_of_a_stable_sort(n, m, k, kind):
    rng = np.random.default_rng(n + m + k)
    values = rng.normal(size=(n, m)).astype(np.float32)
    if "ties" in kind:
        values = np.round(values)
        values = -np.abs(values) if "negative" in kind else values
    elif kind == "zeros of both signs":
        values = np.where(values > 0, np.float32(0), np.float32(-0.0))
    elif kind == "little left":
        values[rng.random((n, m)) < 0.97] = -np.inf
    indices, counts = top_k_indices(values, k)
    assert indices.shape == (n, min(k, m))
    for row, row_indices, count in zip(values, indices, counts, strict=True):
        order = [index for index in np.argsort(-row.astype(float), kind="stable") if row[index] > -np.inf]
        assert row_indices[:count].tolist() == order[:k]
