"""A regression slope is the posterior mean of ridge regression."""

import numpy as np
import pytest

from cflightning.tasks.regularisation.ridge import Slope, regression_slope

PRIOR = Slope(1.0, 0.6)


def test_the_slope_is_that_of_least_squares():
    rng = np.random.default_rng(0)
    truth, noise = rng.normal(size=100_000), 0.5 * rng.normal(size=100_000)
    for size in (0.5, 1.0, 2.0):  # multiple of the true part in the scores
        part = size * truth
        assert regression_slope(part, truth + noise - part, PRIOR).value == pytest.approx(1 / size, abs=0.01)
        assert regression_slope(part, truth + noise, Slope(0.0, 2.0)).value == pytest.approx(1 / size, abs=0.01)
    slope = regression_slope(rng.normal(size=100_000), noise, PRIOR)  # the errors are those with the part
    assert slope.value == pytest.approx(1, abs=0.01)
    assert slope.std == pytest.approx(0.5 / 100_000**0.5, rel=0.01)
    learnt = rng.normal(size=100_000)
    assert regression_slope(learnt, noise - learnt, PRIOR).value == pytest.approx(0, abs=0.01)


def test_the_slope_solves_the_ridge_regression():
    rng = np.random.default_rng(1)
    part, error = rng.normal(size=50), rng.normal(size=50)
    weight = (error @ error / 50) / 0.6**2  # noise variance over prior variance
    expected = 1 + part @ error / (part @ part + weight)
    assert regression_slope(part, error, PRIOR).value == pytest.approx(expected)


def test_few_ratings_leave_the_prior():
    part = np.array([0.1, -0.1])
    assert regression_slope(part, np.array([-1.0, 1.0]), PRIOR).value == pytest.approx(1, abs=0.1)
    assert regression_slope(np.zeros(5), np.ones(5), PRIOR) == PRIOR
    assert regression_slope(np.ones(5), np.zeros(5), PRIOR) == PRIOR
    assert regression_slope(np.zeros(0), np.zeros(0), PRIOR) == PRIOR
