"""The prior of fold-in: covariance, information and the SVD++ term."""

import numpy as np
import pytest
import torch

from cflightning.models.network import DotProductTables
from cflightning_export.fold_in.prior import estimate_prior, information, moments, unshrink

from ..fold_in_data import ITEMS, SCALES, make_svdpp_terms, make_tables

SIGMOID = SCALES["sigmoid"]


def test_the_prior_is_the_distribution_of_trained_vectors():
    tables = make_tables()
    vectors, bias = tables.user_vectors.clone(), tables.user_bias.clone()
    vectors[7], bias[7] = 0, 0  # never trained
    prior = estimate_prior(tables._replace(user_vectors=vectors, user_bias=bias), "user", SIGMOID)
    rows = np.delete(np.column_stack([vectors, bias]).astype(float), [0, 7], axis=0)
    np.testing.assert_allclose(prior.mean, rows.mean(0))
    np.testing.assert_allclose(np.diag(prior.root @ prior.root.T), rows.var(0, ddof=1), rtol=1e-9)
    assert prior.weights is None


def test_unshrink_recovers_the_covariance_of_true_vectors():
    """Vectors drawn from N(m, S) are rated through the identity link and estimated: S is recovered."""
    rng, scale = np.random.default_rng(0), SCALES["identity"]
    noise, width, count = 0.45, 4, 9
    mix = 0.4 * rng.normal(size=(width, width))
    truth, mean = mix @ mix.T, rng.normal(size=width)
    z = np.column_stack([0.4 * rng.normal(size=(count, width - 1)), np.ones(count)])
    rows = rng.multivariate_normal(mean, truth, 200_000)
    rated = rows @ z.T + noise**0.5 * rng.normal(size=(len(rows), count))
    fisher = information(np.column_stack([z[:, :-1], np.zeros(count)]), np.full(count, 1 / count), 0.0, scale)
    fisher *= count / noise
    np.testing.assert_allclose(fisher, z.T @ z / noise)
    estimates = mean + (rated - z @ mean) @ (z / noise) @ np.linalg.inv(fisher + np.linalg.inv(truth))
    spread = np.cov(estimates.T)
    assert abs(spread - truth).max() > 0.1
    np.testing.assert_allclose(unshrink(spread, fisher), truth, atol=0.02)


def test_unshrink_is_the_fixed_point_of_em():
    rng = np.random.default_rng(1)
    spread, fisher = (part @ part.T for part in rng.normal(size=(2, 6, 9)))
    true = unshrink(spread, fisher)
    np.testing.assert_allclose(true, spread + np.linalg.inv(np.linalg.inv(true) + fisher), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(unshrink(spread, 1e12 * fisher), spread, rtol=1e-5)
    bounded = unshrink(spread, 1e-12 * fisher)
    np.testing.assert_allclose(bounded, 30 * spread, rtol=1e-4)
    assert not unshrink(np.zeros((3, 3)), np.eye(3)).any()
    assert np.isfinite(unshrink(spread[:3, :3], np.diag([1.0, 2.0, 0.0]))).all()


def test_information_is_the_curvature_of_the_squared_error():
    """Compute the curvature by differences of half the expected squared error, at targets that are met exactly."""
    other = np.random.default_rng(2).normal(size=(30, 5))
    share, point, scale = np.full(30, 1 / 30), np.zeros(5), SCALES["other range"]

    def score(x):
        logit = torch.from_numpy(0.3 + other[:, -1] + other[:, :-1] @ x[:-1] + x[-1])
        return scale.low + (scale.high - scale.low) * torch.sigmoid(logit).numpy()

    target, steps = score(point), 1e-3 * np.eye(5)

    def error(x):
        return share @ (score(x) - target) ** 2 / 2

    curvature = [[(error(point + a + b) - error(point + a - b) - error(point - a + b) + error(point - a - b)) / 4e-6
                  for a in steps] for b in steps]  # fmt: skip
    np.testing.assert_allclose(information(other, share, 0.3, scale), curvature, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("side", ["user", "item"])
def test_few_ratings_widen_the_prior(side):
    tables, terms = make_tables(), make_svdpp_terms()
    narrow, wide, many = (
        estimate_prior(tables, side, SIGMOID, counts, terms)
        for counts in (None, np.full(ITEMS, 5), np.full(ITEMS, 10**9))
    )
    before, after, sure = (np.trace(prior.root @ prior.root.T) for prior in (narrow, wide, many))
    assert after > 1.1 * before
    if side == "item":  # frequently rated items have small variances; only users have an SVD++ term here
        assert sure == pytest.approx(before, rel=1e-3)
    nothing = estimate_prior(tables, side, SIGMOID, np.zeros(ITEMS, np.int64), terms)
    np.testing.assert_array_equal(nothing.root, narrow.root)


def test_few_vectors_shrink_correlations():
    def shrunk_covariance(vectors):
        return moments(lambda: iter([vectors]), 8)[1]

    rng = np.random.default_rng(0)
    mix = rng.normal(size=(8, 8))
    many, few = rng.normal(size=(50_000, 8)) @ mix, rng.normal(size=(6, 8)) @ mix
    np.testing.assert_allclose(shrunk_covariance(many), mix.T @ mix, atol=0.3)
    plain = np.cov(few.T)
    assert np.linalg.matrix_rank(plain) < 8
    assert np.linalg.eigvalsh(shrunk_covariance(few)).min() > 1e-3
    np.testing.assert_allclose(np.diag(shrunk_covariance(few)), np.diag(plain))
    for rows in (few[:1], few[:0], np.zeros((5, 8))):
        assert not shrunk_covariance(rows).any()


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_a_prior_from_two_users_or_fewer(rows):
    tables = DotProductTables(
        torch.randn(rows + 1, 3), torch.randn(5, 3), torch.zeros(rows + 1), torch.zeros(5), torch.zeros(())
    )
    prior = estimate_prior(tables, "user", SIGMOID, np.full(4, 2))
    assert np.isfinite(prior.mean).all()
    assert np.linalg.matrix_rank(prior.root) == 4


@pytest.mark.parametrize(("counts", "trust"), [(None, 0.5), (np.full(ITEMS, 25), 0.2), (np.full(ITEMS, 300), 0.75)])
def test_svdpp_terms_move_the_mean(counts, trust):
    tables, terms = make_tables(), make_svdpp_terms()
    prior = estimate_prior(tables, "user", SIGMOID, counts, terms)
    learnt = torch.cat([terms["user_factors.vectors"], terms["user_bias.vectors"]], 1).double().numpy()
    np.testing.assert_allclose(prior.weights.vectors @ prior.weights.directions, trust * learnt, atol=1e-6)
    mean = torch.cat([terms["user_factors.mean"], terms["user_bias.mean"]], 1).double().numpy()[1:]
    rows = np.column_stack([tables.user_vectors, tables.user_bias]).astype(float)[1:] - trust * mean
    np.testing.assert_allclose(prior.mean, rows.mean(0), atol=1e-7)
    other = {name: value[:, :1] for name, value in terms.items()}  # another network
    assert estimate_prior(tables, "user", SIGMOID, counts, other).weights is None
    assert estimate_prior(tables, "item", SIGMOID, counts, terms).weights is None
