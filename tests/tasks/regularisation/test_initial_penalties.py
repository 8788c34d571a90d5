"""Initial penalties are those of the variances of the training part."""

import numpy as np
import pandas as pd
import pytest

from cflightning import RatingsDataModule
from cflightning.data.splits.options import SplitOptions
from cflightning.models.network import RatingScale
from cflightning.tasks.regularisation.initial_penalties import MAX_BIAS_L2, NARROW_NOISE, estimate_penalties

USERS, ITEMS, N = 800, 600, 24_000


def frame(user_sd=0.6, item_sd=0.3, noise=0.8, centre=3.0, seed=0):
    """Biases and noise, nothing else, neither rounded nor clipped."""
    rng = np.random.default_rng(seed)
    user, item = np.divmod(rng.choice(USERS * ITEMS, N, replace=False), ITEMS)
    rating = centre + user_sd * rng.normal(size=USERS)[user] + item_sd * rng.normal(size=ITEMS)[item]
    return pd.DataFrame({"user": user, "item": item, "rating": rating + noise * rng.normal(size=N)})


def penalties(table, sigmoid=True, margin=0.125, **options):
    data = RatingsDataModule.from_frame(table)
    return estimate_penalties(data, RatingScale(data.rating_range, sigmoid, margin), **options).bias_l2, data


def test_bias_penalties_are_noise_variance_over_bias_variance_in_logits():
    (user, item), data = penalties(frame())
    low, high = data.rating_range
    share = ((data.mean_rating - low) / (high - low) + 0.125) / 1.25
    slope = 1.25 * share * (1 - share)  # slope of a score in units of the range
    assert user == pytest.approx(0.8**2 / 0.6**2 * slope**2, rel=0.1)
    assert item == pytest.approx(0.8**2 / 0.3**2 * slope**2, rel=0.15)
    (plain, _), _ = penalties(frame(), sigmoid=False)  # a logit is a rating then
    assert plain == pytest.approx(0.8**2 / 0.6**2 / (high - low) ** 2, rel=0.1)


def test_the_scale_of_the_ratings_does_not_matter():
    table = frame()
    expected, _ = penalties(table)
    for factor, shift in ((1000, 0), (0.1, -7), (-1, 0)):
        found, _ = penalties(table.assign(rating=table.rating * factor + shift))
        assert found == pytest.approx(expected, rel=1e-2)


def test_without_biases_the_penalties_are_large():
    (user, item), _ = penalties(frame(user_sd=0, item_sd=0))
    assert user > 5
    assert item > 5
    user, item = np.arange(N) // 60, np.arange(N) % 60
    (user, item), _ = penalties(
        pd.DataFrame({"user": user, "item": item, "rating": (user + item) % 2})
    )  # half and half
    assert user <= MAX_BIAS_L2
    assert item <= MAX_BIAS_L2


def test_biases_without_noise_have_almost_no_penalty():
    table = frame()
    (user, _), _ = penalties(table.assign(rating=table.user % 5 + 1.0))
    assert user < 1e-3


def test_a_sample_of_the_rows_gives_similar_penalties():
    expected, _ = penalties(frame())
    found, _ = penalties(frame(), max_rows=5000)
    assert found != expected
    assert found == pytest.approx(expected, rel=0.25)


@pytest.mark.parametrize("rows", [2, 3, 10])
def test_a_handful_of_ratings_is_enough(rows):
    table = pd.DataFrame({"user": range(rows), "item": [0] * rows, "rating": np.arange(rows) % 2 + 1.0})
    data = RatingsDataModule.from_frame(table, split=SplitOptions(test_fraction=0.0, val_fraction=0.0))
    found = estimate_penalties(data, RatingScale(data.rating_range, True, 0.125))
    assert all(0 <= value <= MAX_BIAS_L2 for value in found.bias_l2)
    assert 0 <= found.noise_scale <= 1


def test_outliers_that_stretch_the_range_lower_l2_and_are_warned_of(caplog):
    def noise_scale(table):
        data = RatingsDataModule.from_frame(table)
        found = estimate_penalties(data, RatingScale(data.rating_range, True, 0.125))
        return found.noise_scale, np.ptp(data.rating_range)

    table = frame()
    assert noise_scale(table.assign(rating=table.rating.clip(1, 5)))[0] == 1
    far = table.assign(rating=table.rating.clip(1, 5).where(table.index != 7, 40.0))
    found, width = noise_scale(far)
    assert found == pytest.approx(0.75 / width / NARROW_NOISE, rel=0.1)
    assert "stretched the range" not in caplog.text
    noise_scale(table.assign(rating=table.rating.clip(1, 5).where(table.index != 7, 400.0)))
    assert "from 1 to 400, but the residuals of user and item biases have a standard deviation of only" in caplog.text
