"""Explanations, with the graphs of an independent writer, compared with numpy."""

import numpy as np
import pytest

from cflightning_serve import InputError, UnknownIdError, UnsupportedError


def ratings_of(tables, scorer):
    """Return four rated items with their ratings, or None for a bundle without ratings."""
    ratings = None if scorer.manifest.rating_range is None else [4.5, 1.0, 3.0, 5.0]
    return tables.item_ids[[1, 5, 2, 8]].tolist(), ratings


def test_contributions_equal_those_of_numpy_and_sum_to_the_logit(folded, fold_in_graphs):
    scorer, tables = folded
    items, ratings = ratings_of(tables, scorer)
    target = tables.item_ids[4]
    result = scorer.explain(None, target, items=items, ratings=ratings)
    reference = fold_in_graphs.Reference(tables.recommender)
    numbers = [np.nan] * 4 if ratings is None or tables.beside is not None else ratings
    _, each = reference.solve(items, numbers)
    np.testing.assert_allclose(result.contributions, each @ reference.z[5], atol=1e-4)
    assert result.contributions.sum() + result.base + result.rest == pytest.approx(result.logit, abs=1e-5)
    assert result.rest == pytest.approx(0, abs=1e-5)
    assert result.score == pytest.approx(reference.score(items, numbers, [target])[0], abs=1e-4)
    assert result.items.tolist() == items


def test_known_users_have_a_remainder(folded):
    scorer, tables = folded
    items, ratings = ratings_of(tables, scorer)
    user, target = tables.user_ids[2], tables.item_ids[4]
    result = scorer.explain(user, target, items=items, ratings=ratings)
    fresh = scorer.explain(None, target, items=items, ratings=ratings)
    np.testing.assert_array_equal(result.contributions, fresh.contributions)
    assert result.contributions.sum() + result.base + result.rest == pytest.approx(result.logit, abs=1e-5)
    logit = tables.recommender.logits([user])[0, 5]
    assert result.logit == pytest.approx(logit, abs=1e-4)
    assert abs(result.rest) > 1e-3


def test_nearest_items_are_the_liked_ones_by_cosine(make_folded):
    scorer, tables = make_folded("tables")
    items, ratings = ratings_of(tables, scorer)
    target = tables.item_ids[4]
    result = scorer.explain(None, target, items=[*items, 99_999], ratings=[*ratings, 5.0]).nearest
    cosines = tables.cosines(target)
    liked = [items[0], items[3]]  # 4.5 and 5, the mean of the known ones being 3.375
    expected = sorted(liked, key=lambda one: -cosines[tables.rows([one], tables.item_ids)[0] - 1])
    assert result.items.tolist() == expected
    assert result.similarities.tolist() == sorted(result.similarities.tolist(), reverse=True)


def test_invalid_arguments_are_refused(make_folded):
    scorer, tables = make_folded("tables")
    known = tables.item_ids[0]
    for words, error, match in (
        ({"user": None, "item": 99_999, "items": [0]}, UnknownIdError, "item must be known"),
        ({"user": 99_999, "item": known, "items": [0]}, UnknownIdError, "user must be known"),
        ({"user": None, "item": known}, InputError, "needs a user"),
        ({"user": 10, "item": known, "ratings": [3.0]}, InputError, "ratings need the items"),
        ({"user": 10, "item": known}, UnsupportedError, "with --with-history"),
        ({"user": None, "item": [known, known], "items": [0]}, InputError, "one id"),
    ):
        with pytest.raises(error, match=match):
            scorer.explain(**words)
