"""Low-rank EASE and its inverse Gram matrices against dense ones in double precision."""

import numpy as np
import pytest
import torch

from cflightning.errors import ConfigError
from cflightning.solvers.ease import ease
from cflightning.solvers.inverse_gram import (
    DualInverse,
    PrimalInverse,
    ScaledInteractions,
    TruncatedInverse,
    invert_gram,
)
from cflightning.solvers.low_rank_ease import LowRankEase
from cflightning.utils.interactions import make_interactions
from cflightning.utils.thread_pool import ThreadPool


def random_interactions(seed=0, users=70, items=50, n=900, weighted=False):
    """Interactions of users and items of uneven popularity, three users and two items without any."""
    rng = np.random.default_rng(seed)
    drawn = [(rng.random(n) ** 2 * (size - 1)).astype(np.int32) + 1 for size in (users, items)]
    user, item = np.unique(np.stack(drawn, 1), axis=0).astype(np.int32).T.copy()
    values = torch.from_numpy(rng.uniform(0.2, 3, len(user)).astype(np.float32)) if weighted else None
    return make_interactions(torch.from_numpy(user), torch.from_numpy(item), users + 3, items + 2, values)


def dense(interactions):
    """X in double precision."""
    return interactions.by_item.dense_columns().double().numpy()


def dense_scores(interactions, dim, l2=200.0, user_power=0.2, item_power=0.0, dropout=0.2):
    """The scores X B of rank dim, by textbook formulas."""
    x = dense(interactions)
    counts = [np.maximum((x != 0).sum(axis), 1) for axis in (1, 0)]
    m = counts[0][:, None] ** -user_power * x * counts[1] ** -item_power
    gram = m.T @ m
    penalty = l2 * np.diag(gram).sum() / (x != 0).sum() + dropout / (1 - dropout) * np.diag(gram)
    inverse = np.linalg.inv(gram + np.diag(penalty))
    weights = np.eye(len(gram)) - inverse / np.diag(inverse)
    np.testing.assert_allclose(np.diag(weights), 0, atol=1e-9)
    scale = counts[1] ** item_power
    directions = np.linalg.svd(m @ weights * scale)[2][:dim].T
    return x / scale @ weights * scale @ directions @ directions.T


def fitted(interactions, dim, sweeps=6, **options):
    """The tables after some sweeps."""
    solver = LowRankEase(interactions, dim, **options)
    for _ in range(sweeps):
        solver.sweep()
    return solver.tables()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", [PrimalInverse, DualInverse, TruncatedInverse])
def test_inverse_equals_a_dense_one(kind, weighted):
    interactions = random_interactions(weighted=weighted)
    x = dense(interactions)
    rng = np.random.default_rng(1)
    user_scale, item_scale, penalty = (rng.uniform(0.5, 2, n).astype(np.float32) for n in (*x.shape, x.shape[1]))
    m = user_scale[:, None].astype(float) * x * item_scale
    expected = np.linalg.inv(m.T @ m + np.diag(penalty.astype(float)))
    table = torch.from_numpy(rng.standard_normal((x.shape[1], 70)).astype(np.float32))
    with ThreadPool(2) as pool:
        matrix = ScaledInteractions(interactions, torch.from_numpy(user_scale), torch.from_numpy(item_scale))
        options = {"rank": 52} if kind is TruncatedInverse else {}
        inverse = kind(matrix, torch.from_numpy(penalty), pool, **options)
        product = inverse.apply(table, pool)
    np.testing.assert_allclose(inverse.diagonal, np.diag(expected), rtol=1e-3)
    np.testing.assert_allclose(product, expected @ table.numpy(), atol=2e-4)


@pytest.mark.parametrize(
    "options", [{}, {"l2": 20.0, "dropout": 0.0}, {"item_power": 0.5, "l2": 3.0}, {"user_power": 0.0}]
)
@pytest.mark.parametrize("shape", [(70, 50), (50, 90)])
@pytest.mark.parametrize("dim", [3, 20])
def test_scores_equal_those_of_a_dense_solution(dim, shape, options):
    interactions = random_interactions(2, *shape)
    tables = fitted(interactions, dim, **options)
    expected = dense_scores(interactions, dim, **options)
    scores = (tables.user_vectors @ tables.item_vectors.T).numpy()
    np.testing.assert_allclose(scores, expected, atol=2e-3 * np.abs(expected).max())


def test_full_rank_without_dropout_and_exponents_is_ease():
    interactions = random_interactions(3)
    tables = fitted(interactions, 52, l2=40.0, user_power=0.0, dropout=0.0)
    expected = dense(interactions) @ ease(interactions, 40.0).double().numpy()
    np.testing.assert_allclose(
        (tables.user_vectors @ tables.item_vectors.T).numpy(), expected, atol=1e-3 * np.abs(expected).max()
    )


def test_weights_are_entries_of_the_matrix():
    interactions = random_interactions(4, weighted=True)
    tables = fitted(interactions, 8, l2=10.0)
    expected = dense_scores(interactions, 8, l2=10.0)
    scores = (tables.user_vectors @ tables.item_vectors.T).numpy()
    np.testing.assert_allclose(scores, expected, atol=2e-3 * np.abs(expected).max())


def test_users_are_sums_of_the_encoder_and_unknown_ones_are_zero():
    interactions = random_interactions(5)
    tables = fitted(interactions, 6)
    np.testing.assert_allclose(tables.user_vectors, dense(interactions) @ tables.encoder.double().numpy(), atol=1e-5)
    for table, counts in zip(tables[:2], (matrix.counts for matrix in interactions), strict=True):
        assert not table[counts == 0].any()
    assert not tables.item_vectors[interactions.by_item.counts == 0].any()


@pytest.mark.parametrize("shape", [(70, 50), (50, 90)])
def test_threads_do_not_change_a_bit(shape):
    interactions = random_interactions(6, *shape)
    for one, three in zip(fitted(interactions, 5, threads=1), fitted(interactions, 5, threads=3), strict=True):
        assert torch.equal(one, three)


def test_large_tables_are_truncated(monkeypatch):
    from cflightning.solvers import inverse_gram

    matrix = ScaledInteractions(random_interactions(), torch.ones(73), torch.ones(52))
    with ThreadPool(1) as pool:
        assert isinstance(invert_gram(matrix, torch.ones(52), pool, rank=4), PrimalInverse)
        monkeypatch.setattr(inverse_gram, "EXACT_OPERATIONS", 1e3)
        assert isinstance(invert_gram(matrix, torch.ones(52), pool, rank=4), TruncatedInverse)


def test_loss_is_the_share_of_the_squared_error():
    interactions = random_interactions(7)
    solver = LowRankEase(interactions, 9, user_power=0.0, dropout=0.0, l2=5.0)
    losses = [solver.sweep() for _ in range(5)]
    tables = solver.tables()
    x = dense(interactions)
    error = x - (tables.user_vectors @ tables.item_vectors.T).double().numpy()
    assert losses[-1] == pytest.approx((error**2).sum() / (x**2).sum(), rel=1e-4)


@pytest.mark.parametrize(
    "options", [{"dim": 0}, {"l2": 0.0}, {"l2": float("nan")}, {"dropout": 1.0}, {"dropout": -0.1}]
)
def test_settings_out_of_range_are_refused(options):
    with pytest.raises(ConfigError, match="ease: must have dim of at least 1, l2 above 0 and dropout"):
        LowRankEase(random_interactions(), **{"dim": 4} | options)


def test_tables_before_a_sweep_are_refused():
    with pytest.raises(ConfigError, match=r"call sweep\(\) first"):
        LowRankEase(random_interactions(), 4).tables()
