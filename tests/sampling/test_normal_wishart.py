"""Draws from the Normal-Wishart posterior have the moments of the closed form."""

import numpy as np
import pytest
import torch

from cflightning.sampling.normal_wishart import normal_wishart, wishart


@pytest.mark.slow
def test_wishart_has_its_mean_and_variance():
    rng, freedom = np.random.default_rng(0), 7.5
    root = torch.tensor([[2.0, 0, 0], [0.5, 1, 0], [-0.3, 0.2, 0.7]], dtype=torch.float64)
    inverse_scale = root @ root.T
    draws = torch.stack([wishart(freedom, inverse_scale, rng) for _ in range(20_000)])
    scale = torch.linalg.inv(inverse_scale)
    torch.testing.assert_close(draws.mean(0), freedom * scale, atol=0.15, rtol=0.02)
    diagonal = scale.diag()
    expected = freedom * (scale.square() + torch.outer(diagonal, diagonal))
    torch.testing.assert_close(draws.var(0), expected, atol=0.5, rtol=0.06)


def test_many_vectors_determine_the_draw():
    rng = np.random.default_rng(1)
    root, mean = np.array([[1.5, 0], [0.6, 0.4]]), np.array([0.3, -2.0])
    rows = torch.from_numpy((rng.standard_normal((50_000, 2)) @ root.T + mean).astype(np.float32))
    drawn, precision = normal_wishart(rows, torch.zeros(2, 2, dtype=torch.float64), 0, rng)
    np.testing.assert_allclose(drawn, mean, atol=0.03)
    np.testing.assert_allclose(torch.linalg.inv(precision), root @ root.T, rtol=0.05, atol=0.02)


def test_further_scatter_counts_as_vectors_do():
    rng = np.random.default_rng(2)
    rows = torch.from_numpy(rng.standard_normal((2000, 2)).astype(np.float32))
    scatter = 4.0 * 18_000 * torch.eye(2, dtype=torch.float64)
    _, precision = normal_wishart(rows, scatter, 18_000, rng)
    np.testing.assert_allclose(torch.linalg.inv(precision), np.eye(2) * 3.7, atol=0.15)  # .1 * 1 + .9 * 4


@pytest.mark.slow
@pytest.mark.parametrize("rows", [0, 1])
def test_few_vectors_leave_the_prior(rows):
    rng = np.random.default_rng(3)
    draws = [normal_wishart(torch.zeros(rows, 3), torch.zeros(3, 3).double(), 0, rng) for _ in range(3000)]
    precision = torch.stack([one for _, one in draws]).mean(0)
    torch.testing.assert_close(precision, (3.0 + rows) * torch.eye(3).double(), atol=0.3, rtol=0)
    assert all(bool(mean.isfinite().all()) for mean, _ in draws)
