"""The bias-only baseline against a dense solution, a plain loop and what must hold."""

import numpy as np
import pytest

from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.splits.options import SplitOptions
from cflightning.data.splits.split import TRAIN
from cflightning.metrics.baseline import fit_baseline


def made_up(users=60, items=40, rows=700, sd=(0.5, 0.7, 0.9), seed=0):
    rng = np.random.default_rng(seed)
    pairs = rng.permutation(users * items)[:rows]
    user, item = (pairs // items).astype(np.int32), (pairs % items).astype(np.int32)
    effects = [rng.normal(0, s, n) for s, n in zip(sd, (users, items, rows), strict=True)]
    return user, item, (3.5 + effects[0][user] + effects[1][item] + effects[2]).astype(np.float32)


def fit(user, item, rating, train=None, **options):
    train = np.ones(len(rating), dtype=bool) if train is None else train
    return fit_baseline(user, item, rating, train, int(user.max()) + 1, int(item.max()) + 1, **options)


EXACT = {"tolerance": 1e-9, "max_rounds": 5000}


def test_biases_are_those_of_ridge_regression():
    user, item, rating = made_up()
    train = np.random.default_rng(1).random(len(rating)) < 0.8
    got = fit(user, item, rating, train, **EXACT)
    design = np.zeros((train.sum(), 1 + 60 + 40))
    rows = np.arange(train.sum())
    design[:, 0], design[rows, 1 + user[train]], design[rows, 61 + item[train]] = 1, 1, 1
    shrinkage = np.repeat([0, 1 / got.user_variance, 1 / got.item_variance], [1, 60, 40]) * got.noise_variance
    solution = np.linalg.solve(design.T @ design + np.diag(shrinkage), design.T @ rating[train].astype(np.float64))
    np.testing.assert_allclose([got.mean, *got.user, *got.item], solution, atol=1e-5)


def test_variances_are_a_fixed_point_of_expectation_maximisation():
    user, item, rating = made_up()
    got = fit(user, item, rating, **EXACT)
    residual = rating - got.mean - got.user[user] - got.item[item]
    noise = 0.0
    for number, bias, variance in ((user, got.user, got.user_variance), (item, got.item, got.item_variance)):
        left = 1 / (np.bincount(number) / got.noise_variance + 1 / variance)
        assert variance == pytest.approx((bias**2 + left).mean(), rel=1e-5)
        noise += left[number].mean()
    assert got.noise_variance == pytest.approx((residual**2).mean() + noise, rel=1e-5)


def test_known_variances_are_found():
    got = fit(*made_up(400, 300, 40_000, (0.4, 0.6, 0.9)))
    assert got.user_variance == pytest.approx(0.16, rel=0.2)
    assert got.item_variance == pytest.approx(0.36, rel=0.2)
    assert got.noise_variance == pytest.approx(0.81, rel=0.03)


def als(user, item, rating, shrink_user, shrink_item, users, items, rounds=10):
    """Koren's alternating means with given shrinkage, as Surprise's BaselineOnly has them."""
    mean, b_user, b_item = rating.mean(dtype=np.float64), np.zeros(users), np.zeros(items)
    for _ in range(rounds):
        b_item = np.bincount(item, rating - mean - b_user[user], items) / (shrink_item + np.bincount(item, None, items))
        b_user = np.bincount(user, rating - mean - b_item[item], users) / (shrink_user + np.bincount(user, None, users))
    return lambda u, i: np.clip(mean + b_user[u] + b_item[i], rating.min(), rating.max())


def rmse(score, rating):
    return float(np.sqrt(((score - rating) ** 2).mean()))


@pytest.mark.parametrize("sd", [(0.5, 0.7, 0.9), (0.1, 0.1, 1.0), (1.0, 0.02, 0.5)])
def test_no_shrinkage_of_a_grid_does_clearly_better(sd):
    user, item, rating = made_up(300, 200, 6000, sd, seed=2)
    train = np.random.default_rng(1).random(len(rating)) < 0.7
    got = rmse(fit(user, item, rating, train).score(user[~train], item[~train]), rating[~train])
    known = user[train], item[train], rating[train]
    grid = (1, 2, 4, 8, 16, 32, 64, 256)
    best = min(
        rmse(als(*known, a, b, 300, 200)(user[~train], item[~train]), rating[~train]) for a in grid for b in grid
    )
    assert got < 1.003 * best


def test_unknown_users_have_no_bias():
    user, item, rating = made_up()
    train = (user != 7) & (item != 3)
    got = fit(user, item, rating, train)
    one, other = np.array([7, 7, 5]), np.array([3, 4, 3])
    np.testing.assert_allclose(got.score(one, other), [got.mean, got.mean + got.item[4], got.mean + got.user[5]])


def test_scores_are_clipped_to_the_training_rows_range_or_the_given_one():
    user, item, rating = made_up(sd=(3.0, 3.0, 0.1))
    rating[0] = 99
    train = np.arange(len(rating)) > 0
    scores = fit(user, item, rating, train).score(user, item)
    assert (scores.min(), scores.max()) == (rating[train].min(), rating[train].max())
    scores = fit(user, item, rating, train, rating_range=(1.0, 5.0)).score(user, item)
    assert (scores.min(), scores.max()) == (1, 5)


def test_rows_outside_the_training_part_and_chunks_change_nothing():
    user, item, rating = made_up()
    train = np.random.default_rng(1).random(len(rating)) < 0.5
    one = fit(user, item, rating, train)
    rating[~train] = -1e3
    reverse = slice(None, None, -1)
    for rows in (slice(None), reverse):
        two = fit(user[rows], item[rows], rating[rows], train[rows], chunk_rows=10)
        np.testing.assert_allclose(two.user, one.user, atol=1e-12)
        np.testing.assert_allclose(two.item, one.item, atol=1e-12)
        assert two.mean == pytest.approx(one.mean)


def test_ratings_far_from_zero_are_as_good():
    user, item, rating = made_up()
    rating = np.round(rating * 64) / 64  # so that the shift is exact
    near, far = fit(user, item, rating, **EXACT), fit(user, item, rating.astype(np.float64) + 2**20, **EXACT)
    np.testing.assert_allclose(far.user, near.user, atol=1e-6)
    assert far.mean - 2**20 == pytest.approx(near.mean, abs=1e-6)


@pytest.mark.parametrize(
    ("user", "item", "rating"),
    [
        ([0], [0], [4.0]),
        ([0, 1, 2], [0, 0, 1], [3.0, 3.0, 3.0]),
        ([0, 0, 0, 0], [0, 1, 2, 3], [1.0, 2.0, 4.0, 5.0]),
        ([0, 1, 2, 3], [0, 1, 2, 3], [1.0, 2.0, 4.0, 5.0]),
    ],
)
def test_tiny_tables(user, item, rating):
    user, item, rating = np.array(user), np.array(item), np.array(rating, np.float32)
    got = fit(user, item, rating)
    scores = got.score(user, item)
    assert np.isfinite(scores).all()
    assert rating.min() <= scores.min() <= scores.max() <= rating.max()
    assert got.mean == pytest.approx(rating.mean(), abs=1e-6)


def test_without_noise_it_is_exact():
    user, item, rating = made_up(sd=(1.0, 1.0, 0.0))
    np.testing.assert_allclose(fit(user, item, rating, **EXACT).score(user, item), rating, atol=1e-3)


@pytest.mark.data
@pytest.mark.parametrize(("fold", "bar"), [("u1", 0.9537), ("u2", 0.9434)])
def test_movielens_100k(real_data, fold, bar):
    data = RatingsDataModule(str(real_data / "ml-100k"), split=SplitOptions(method="predefined", fold=fold))
    table, train, test = data.table, data.split.parts == TRAIN, data.split.test
    user, item, rating = table.user.codes, table.item.codes, table.ratings
    sizes = len(table.user.ids), len(table.item.ids)
    got = rmse(fit_baseline(user, item, rating, train, *sizes).score(user[test], item[test]), rating[test])
    assert got < bar
    surprise = als(user[train], item[train], rating[train], 15, 10, *sizes)
    assert got < rmse(surprise(user[test], item[test]), rating[test]) - 0.003
