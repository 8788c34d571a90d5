"""Damped Newton steps, compared with another minimiser."""

import numpy as np
import pytest
import torch

from cflightning_export.fold_in.newton import RatedVectors, minimise

from ..fold_in_data import SCALES


@pytest.mark.parametrize("kind", ["random", "lowest"])
@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_the_minimum_is_that_of_lbfgs(scale, kind):
    rng, dim = np.random.default_rng(0), 6
    low, high = scale.rating_range
    z, base = rng.normal(size=(30, dim)), rng.normal(size=30)
    rating = rng.uniform(low, high, 30) if kind == "random" else np.full(30, low)
    root = rng.normal(size=(dim, dim))
    penalty, mean = root @ root.T + np.eye(dim), 0.1 * rng.normal(size=dim)
    found = minimise(RatedVectors(z, base, rating, scale), penalty, penalty @ mean, mean)
    tensors = [torch.from_numpy(array) for array in (z, base, rating, penalty, mean)]
    x = tensors[4].clone().requires_grad_()
    descent = torch.optim.LBFGS(
        [x], max_iter=500, tolerance_grad=1e-10, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def cost(x):
        z, base, rating, penalty, mean = tensors
        logit = z @ x + base
        score = scale.low + (scale.high - scale.low) * logit.sigmoid() if scale.sigmoid else logit
        return (score - rating).square().sum() + (x - mean) @ penalty @ (x - mean)

    def closure():
        descent.zero_grad()
        value = cost(x)
        value.backward()
        return value

    descent.step(closure)
    assert cost(torch.from_numpy(found)) <= cost(x) * (1 + 1e-9)
    np.testing.assert_allclose(found, x.detach().numpy(), atol=1e-4)


def test_no_ratings_leave_the_mean():
    scale, mean = SCALES["sigmoid"], np.array([0.5, -1.0])
    penalty = np.array([[2.0, 0.5], [0.5, 1.0]])
    none = RatedVectors(np.empty((0, 2)), np.empty(0), np.empty(0), scale)
    np.testing.assert_allclose(minimise(none, penalty, penalty @ mean, np.zeros(2)), mean)
