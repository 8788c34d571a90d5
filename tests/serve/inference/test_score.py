"""Scores of pairs and known ids, compared with numpy."""

import numpy as np
import pandas as pd
import pytest

from cflightning_serve import InputError


def test_scores_equal_those_of_numpy(plain):
    scorer, tables = plain
    users = np.repeat(np.append(tables.user_ids, tables.unknown_id), len(tables.item_ids) + 1)
    items = np.tile(np.append(tables.item_ids, tables.unknown_id), len(tables.user_ids) + 1)
    scores = scorer.score(users, items)
    assert scores.dtype == np.float32
    assert scores.shape == users.shape
    np.testing.assert_allclose(scores, tables.score(users, items), atol=1e-5)
    low, high = scorer.manifest.rating_range or (-np.inf, np.inf)
    assert low <= scores.min() <= scores.max() <= high


def test_one_pair_gives_a_float_equal_to_that_of_an_array(plain):
    scorer, tables = plain
    user, item = tables.user_ids[0], tables.item_ids[-1]
    score = scorer.score(user, item)
    assert type(score) is float
    assert score == scorer.score([user], [item])[0]


def test_one_id_is_paired_with_every_id_of_an_array(plain):
    scorer, tables = plain
    user, item = tables.user_ids[1], tables.item_ids[2]
    np.testing.assert_array_equal(
        scorer.score(user, tables.item_ids), scorer.score([user] * len(tables.item_ids), tables.item_ids)
    )
    np.testing.assert_array_equal(
        scorer.score(tables.user_ids, item), scorer.score(tables.user_ids, [item] * len(tables.user_ids))
    )
    assert scorer.score(user, [item]).shape == (1,)
    assert scorer.score(user, []).shape == (0,)


@pytest.mark.parametrize(("users", "items"), [([10, 20, 30], [0]), ([10], [0, 3]), ([], [0])])
def test_unequal_lengths_are_refused(scorer, users, items):
    with pytest.raises(InputError, match=f"{len(users)} users and {len(items)} items"):
        scorer.score(users, items)


def test_empty_arrays_give_empty_scores(plain):
    scorer, _ = plain
    for empty in ([], (), np.array([]), np.array([], dtype=object), pd.Series([], dtype=bool)):
        scores = scorer.score(empty, empty)
        assert scores.shape == (0,)
        assert scores.dtype == np.float32


def test_known_ids_are_distinguished_from_unknown_ones(plain):
    scorer, tables = plain
    for knows, ids in ((scorer.knows_user, tables.user_ids), (scorer.knows_item, tables.item_ids)):
        assert knows(ids[0]) is True
        assert knows(tables.unknown_id) is False
        known = knows([*ids, tables.unknown_id])
        assert known.dtype == np.bool_
        assert known.tolist() == [True] * len(ids) + [False]
        assert knows([]).shape == (0,)


def test_an_unknown_user_without_ratings_gets_the_mean_scores_of_all_users(choice_scorer, choice_tables):
    users, items = choice_tables.user_ids, choice_tables.item_ids
    scores = choice_scorer.score(np.repeat(users, len(items)), np.tile(items, len(users))).reshape(len(users), -1)
    np.testing.assert_allclose(choice_scorer.score(choice_tables.unknown_id, items), scores.mean(0), atol=1e-5)
    items_by_score = items[np.argsort(-scores.mean(0))].tolist()
    assert choice_scorer.recommend(choice_tables.unknown_id, 100).items.tolist() == items_by_score
    assert not choice_scorer.knows_user(choice_tables.unknown_id)
