"""Calibration against pandas' quantile bins, and what must hold."""

import numpy as np
import pandas as pd
import pytest

from cflightning.metrics.calibration import calibrate


def made_up(rows, step=None, seed=0):
    rng = np.random.default_rng(seed)
    score = np.clip(rng.normal(3.5, 1.0, rows), 1, 5)
    if step:
        score = np.round(score / step) * step
    rating = np.clip(np.round(score + rng.normal(0, 1, rows)), 1, 5)
    return score.astype(np.float32), rating.astype(np.float32), rng.integers(0, max(rows // 5, 1), rows)


@pytest.mark.parametrize("rows", [1, 2, 3, 9, 10, 11, 97, 1000, 1003])
@pytest.mark.parametrize("step", [None, 0.25, 1.0])
def test_bins_are_those_of_pandas(rows, step):
    score, rating, user = made_up(rows, step)
    got = calibrate(score, rating, user)
    if rows == 1:
        assert (got.rows.tolist(), got.score[0], got.rating[0]) == ([1], score[0], rating[0])
        return
    frame = pd.DataFrame({"score": score.astype(np.float64), "rating": rating.astype(np.float64)})
    groups = frame.groupby(pd.qcut(frame["score"], 10, duplicates="drop"), observed=True)
    assert got.rows.tolist() == groups.size().tolist()
    np.testing.assert_allclose(got.score, groups["score"].mean())
    np.testing.assert_allclose(got.rating, groups["rating"].mean())
    expected = (groups.size() * (groups["score"].mean() - groups["rating"].mean()).abs()).sum() / rows
    assert got.error == pytest.approx(expected)


def test_equal_scores_stay_together_whatever_the_order():
    score, rating, user = np.full(50, 3.5, np.float32), np.repeat([1, 5], 25).astype(np.float32), np.arange(50)
    got = calibrate(score, rating, user)
    assert got.rows.tolist() == [50]
    assert got.error == pytest.approx(0.5)
    score, rating, user = made_up(500, step=0.5)
    order = np.random.default_rng(1).permutation(500)
    for one, two in zip(
        calibrate(score, rating, user), calibrate(score[order], rating[order], user[order]), strict=True
    ):
        np.testing.assert_allclose(one, two)


def test_an_offset_is_the_error():
    score, _, user = made_up(1000)
    assert calibrate(score, score - 0.3, user).error == pytest.approx(0.3, abs=1e-6)
    assert calibrate(score, score, user).error == 0


def test_intervals_are_classical_with_one_row_per_user_and_clustered_otherwise():
    score, rating, _ = made_up(400)
    alone = calibrate(score, rating, np.arange(400))
    order = np.argsort(score)[: alone.rows[0]]
    margin = 1.959964 * rating[order].std(ddof=1) / np.sqrt(alone.rows[0])
    assert alone.rating_high[0] - alone.rating[0] == pytest.approx(margin, rel=1e-5)
    assert alone.rating[0] - alone.rating_low[0] == pytest.approx(margin, rel=1e-5)
    # The same rows three times say no more than once.
    thrice = calibrate(np.tile(score, 3), np.tile(rating, 3), np.tile(np.arange(400), 3))
    np.testing.assert_allclose(thrice.rating_low, alone.rating_low, rtol=1e-6)


def test_one_user_has_no_interval():
    got = calibrate(*made_up(40)[:2], np.zeros(40, dtype=int))
    assert np.isnan(got.rating_low).all()
    assert np.isfinite(got.rating).all()
