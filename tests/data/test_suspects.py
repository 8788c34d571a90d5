"""Detection of values that are probably not ratings, without warnings for usual scales."""

import numpy as np
import pandas as pd
import pytest

from cflightning import RatingsDataModule
from cflightning.data.sources.table_format import TableFormat
from cflightning.data.suspects import find_suspects, look_like_counts

RNG = np.random.default_rng(0)
STARS = np.clip(np.round(2 * (3.5 + RNG.normal(0, 1, 20_000))) / 2, 0.5, 5).astype(np.float32)
JESTER = RNG.uniform(-10, 10, 5000).astype(np.float32)


def having(ratings, *others):
    """Return the ratings with others among them: (value, count)."""
    changed = ratings.copy()
    places = iter(np.random.default_rng(1).permutation(len(ratings)))
    for value, count in others:
        changed[[next(places) for _ in range(count)]] = value
    return changed


@pytest.mark.parametrize(
    ("ratings", "suspects"),
    [
        (having(STARS, (500, 1)), [(500, 1)]),
        (having(STARS[:900], (500, 1)), [(500, 1)]),
        (having(STARS, (45, 3), (1e6, 1)), [(45, 3), (1e6, 1)]),
        (having(STARS, (-100, 2)), [(-100, 2)]),
        (having(STARS[:900], (-1, 100)), [(-1, 100)]),
        (having(STARS[:900], (99, 100)), [(99, 100)]),
        (having(STARS, (-1, 5000), (99, 3000)), [(-1, 5000), (99, 3000)]),
        (having(STARS, (98, 200), (99, 300)), [(98, 200), (99, 300)]),
        (having(STARS, (-99, 4000)), [(-99, 4000)]),
        (having(JESTER, (99, 2500)), [(99, 2500)]),
        (having(RNG.integers(1, 11, 5000).astype(np.float32), (-1, 900)), [(-1, 900)]),
        (having(np.tile(STARS, 20), (500, 1)), [(500, 1)]),  # more than the sample
    ],
)
def test_far_values_are_found(ratings, suspects):
    assert find_suspects(ratings) == suspects
    assert not look_like_counts(ratings)


@pytest.mark.parametrize(
    "ratings",
    [
        STARS,
        JESTER,
        RNG.integers(0, 2, 1000),
        np.where(RNG.random(1000) < 0.5, -1, 1),
        RNG.integers(-1, 2, 1000),
        RNG.integers(-2, 3, 1000),
        RNG.integers(0, 11, 1000),
        np.where(RNG.random(1000) < 0.6, 0, RNG.integers(1, 11, 1000)),  # as in Book-Crossing
        RNG.integers(0, 101, 1000),
        RNG.normal(0, 1, 10_000),
        having(np.where(RNG.random(5000) < 0.8, 5, 4).astype(np.float32), (1, 3)),
        having(np.full(5000, 5, np.float32), (1, 3)),
        np.arange(50) * 1000.0,
        np.full(1000, 3),
    ],
)
def test_usual_scales_have_no_suspects(ratings):
    ratings = np.asarray(ratings, np.float32)
    assert find_suspects(ratings) == []
    assert not look_like_counts(ratings)


@pytest.mark.parametrize(
    "counts",
    [RNG.geometric(0.2, 5000), RNG.lognormal(1, 1, 5000).round() + 1, RNG.exponential(8, 5000), RNG.zipf(2, 5000)],
)
def test_counts_are_recognised(counts):
    assert look_like_counts(np.asarray(counts, np.float32))


def make(ratings):
    n = len(ratings)
    return pd.DataFrame({"user": np.arange(n) // 20, "item": np.arange(n) % 20, "stars": ratings})


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_a_warning_names_value_count_and_options(caplog):
    frame = make(having(STARS[:900], (-1, 100), (500, 1)))
    _ = RatingsDataModule.from_frame(frame, table=TableFormat(rating="stars")).table
    [message] = warnings(caplog)
    assert "of 900 ratings 100 are -1, 1 is 500, far from the others, which are between 0.5 and 5" in message
    assert "--data.table.missing=-1,500" in message
    assert "--data.rating_range=-1,500" in message


def test_stated_values_cause_no_warning(caplog):
    frame = make(having(STARS[:900], (-1, 100)))
    data = RatingsDataModule.from_frame(frame, table=TableFormat(rating="stars", missing="-1"))
    assert len(data.table) == 800
    assert data.table.rating.min() == 0.5
    _ = RatingsDataModule.from_frame(frame, rating_range="-1,5", table=TableFormat(rating="stars")).table
    _ = RatingsDataModule.from_frame(frame, feedback="implicit", table=TableFormat(rating="stars")).table
    assert not warnings(caplog)


def test_counts_are_suggested_as_weights(caplog):
    _ = RatingsDataModule.from_frame(make(RNG.geometric(0.1, 900)), table=TableFormat(rating="stars")).table
    [message] = warnings(caplog)
    assert "look like counts" in message
    assert "--data.feedback implicit --data.table.weight stars" in message
