"""Intervals over users: the bootstrap against plain loops, the normal interval against the bootstrap."""

import numpy as np
import pytest

from cflightning.metrics.intervals import error_sums, normal_interval, percentile_interval, resample, rmse_and_mae


def made_up(users=40, rows=900, seed=0):
    """Make users whose errors are correlated."""
    rng = np.random.default_rng(seed)
    user = rng.integers(0, users, rows) * 3  # numbers with gaps
    rating = rng.integers(1, 6, rows).astype(np.float32)
    score = (rating + rng.normal(0, 0.6, rows) + rng.normal(0, 0.6, users * 3)[user]).astype(np.float32)
    return user, rating, score, (score + rng.normal(0, 0.2, rows)).astype(np.float32)


def errors(score, rating):
    off = score.astype(np.float64) - rating
    return np.sqrt((off**2).mean()), np.abs(off).mean()


def test_sums_give_the_errors_of_every_model():
    user, rating, *scores = made_up()
    sums = error_sums(user, rating, *scores)
    assert sums.shape == (len(np.unique(user)), 5)
    for model, score in enumerate(scores):
        np.testing.assert_allclose(rmse_and_mae(sums.sum(axis=0), model), errors(score, rating))
        for at, one in enumerate(np.unique(user)[:5]):
            np.testing.assert_allclose(rmse_and_mae(sums[at], model), errors(score[user == one], rating[user == one]))


def test_replicates_equal_those_of_a_loop_over_users():
    user, rating, one, two = made_up()
    drawn = resample(error_sums(user, rating, one, two), replicates=50, seed=3)
    rng, known = np.random.default_rng(3), np.unique(user)
    rows_of = {number: np.flatnonzero(user == number) for number in known}
    for replicate in drawn:
        rows = np.concatenate([rows_of[known[at]] for at in rng.integers(0, len(known), len(known))])
        assert replicate[0] == len(rows)
        np.testing.assert_allclose(rmse_and_mae(replicate, 0), errors(one[rows], rating[rows]))
        np.testing.assert_allclose(rmse_and_mae(replicate, 1), errors(two[rows], rating[rows]))


def test_an_interval_is_two_percentiles():
    assert percentile_interval(np.arange(1001.0)) == pytest.approx((25, 975))


def test_intervals_are_wider_than_if_rows_were_independent_and_cover_as_they_say():
    widths, inside = [], 0
    for seed in range(100):
        user, rating, score, _ = made_up(users=100, rows=1500, seed=seed)
        low, high = percentile_interval(rmse_and_mae(resample(error_sums(user, rating, score), 300, seed))[:, 0])
        inside += low < np.sqrt(0.6**2 + 0.6**2) < high  # the error over all users that there could be
        alone = error_sums(np.arange(len(user)), rating, score)
        rows = percentile_interval(rmse_and_mae(resample(alone, 100, seed))[:, 0])
        widths.append((high - low) / (rows[1] - rows[0]))
    assert 88 <= inside <= 99
    assert np.median(widths) > 1.5


def test_differences_are_paired():
    user, rating, one, two = made_up()
    drawn = resample(error_sums(user, rating, one, two))
    gain = rmse_and_mae(drawn, 1)[:, 0] - rmse_and_mae(drawn, 0)[:, 0]
    apart = rmse_and_mae(resample(error_sums(user, rating, one, two), seed=1), 1)[:, 0] - rmse_and_mae(drawn, 0)[:, 0]
    assert gain.std() < apart.std() / 3


def test_groups_of_users_give_the_same_intervals():
    sums = error_sums(*made_up(users=3000, rows=30_000)[:3])
    spread = {}
    for groups in (500, 1_000_000):
        drawn = resample(sums, 1000, max_clusters=groups)
        assert drawn[:, 0].mean() == pytest.approx(30_000, rel=0.01)
        spread[groups] = rmse_and_mae(drawn)[:, 0].std()
    assert spread[500] == pytest.approx(spread[1_000_000], rel=0.15)


def test_seeded_and_fine_with_one_user():
    user, rating, score, _ = made_up()
    sums = error_sums(user, rating, score)
    np.testing.assert_array_equal(resample(sums, 20, 5), resample(sums, 20, 5))
    assert (resample(sums, 20, 5) != resample(sums, 20, 6)).any()
    alone = resample(sums[:1], 10)
    assert (alone == sums[0]).all()


def test_the_normal_interval_of_a_mean_is_that_of_the_bootstrap():
    values = np.random.default_rng(0).beta(0.5, 1.5, 2000)
    low, high = normal_interval(len(values), values.sum(), (values**2).sum())
    drawn = resample(np.stack([np.ones(len(values)), values], axis=1), 4000)
    assert (low, high) == pytest.approx(percentile_interval(drawn[:, 1] / drawn[:, 0]), abs=1e-3)
    assert low + high == pytest.approx(2 * values.mean())


def test_a_normal_interval_needs_two_users():
    assert normal_interval(0, 0.0, 0.0) is None
    assert normal_interval(1, 0.3, 0.09) is None
    assert normal_interval(3, 0.3, 0.03) == pytest.approx((0.1, 0.1))
