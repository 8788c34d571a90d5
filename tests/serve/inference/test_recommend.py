"""Recommendations with exclusions, filters and diversity, compared with numpy."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cflightning_serve import InputError, Scorer, TopK, UnsupportedError
from cflightning_serve.inference.mmr import candidate_count, select_diverse


def expected(tables, user, k, is_allowed):
    """Ids by sorting all scores, of the items that may be recommended."""
    return [item for item in tables.recommend(user, 10_000) if is_allowed(item)][:k]


def test_recommendations_equal_those_of_numpy_with_the_scores_of_pairs(plain):
    scorer, tables = plain
    for user in [*tables.user_ids, tables.unknown_id]:
        top = scorer.recommend(user, k=5)
        assert isinstance(top, TopK)
        assert top.items.tolist() == tables.recommend(user, 5)
        assert top.scores.dtype == np.float32
        np.testing.assert_allclose(top.scores, scorer.score(user, top.items), rtol=1e-6)
        assert (np.diff(top.scores) <= 0).all()


def test_several_users_get_the_same_as_each_alone(plain, assert_same_top_k):
    scorer, tables = plain
    users = [*tables.user_ids, tables.unknown_id, tables.user_ids[0]]
    lists = scorer.recommend(users, 4)
    assert type(lists) is list
    assert_same_top_k(lists, [scorer.recommend(user, 4) for user in users])
    assert_same_top_k(scorer.recommend(users[:1], 4), [lists[0]])
    assert scorer.recommend([]) == []


def test_a_large_k_gives_the_whole_catalogue(plain):
    scorer, tables = plain
    for k in (len(tables.item_ids), len(tables.item_ids) + 1, 2**31, 10**30, np.int64(100)):
        assert sorted(scorer.recommend(tables.user_ids[0], k).items) == sorted(tables.item_ids)
    assert len(scorer.recommend(tables.user_ids[0], 1).items) == 1


@pytest.mark.parametrize("k", [0, -1, True, 2.0, "3", None, np.float64(3)])
def test_an_invalid_k_is_refused(scorer, k):
    with pytest.raises(InputError, match="k: must be an integer from 1"):
        scorer.recommend(10, k)
    with pytest.raises(InputError, match="k: must be an integer from 1"):
        scorer.similar_items(0, k)


@pytest.mark.parametrize("container", [list, tuple, set, np.array, pd.Series, iter, lambda ids: dict.fromkeys(ids)])
def test_excluded_items_are_left_out(plain, container):
    scorer, tables = plain
    user = tables.user_ids[2]
    out = tables.recommend(user, 3)
    top = scorer.recommend(user, 4, exclude=container(out))
    assert top.items.tolist() == tables.recommend(user, 4, out)
    np.testing.assert_allclose(top.scores, scorer.score(user, top.items), rtol=1e-6)


def test_each_user_has_separate_exclusions(plain):
    scorer, tables = plain
    users = tables.user_ids[:4]
    out = [[], tables.recommend(users[1], 2), set(tables.item_ids), np.array(tables.recommend(users[3], 1))]
    lists = scorer.recommend(users, 3, exclude=out)
    for user, left_out, top in zip(users, out, lists, strict=True):
        assert top.items.tolist() == tables.recommend(user, 3, list(left_out))
    assert len(lists[2].items) == 0


def test_fillers_are_dropped(plain):
    scorer, tables = plain
    keep = tables.item_ids[4]
    rest = [item for item in tables.item_ids if item != keep]
    top = scorer.recommend(tables.user_ids[0], 10, exclude=rest * 2 + [tables.unknown_id])
    assert top.items.tolist() == [keep]
    assert np.isfinite(top.scores).all()
    nothing = scorer.recommend(tables.user_ids[0], 10, exclude=tables.item_ids)
    assert nothing.items.shape == nothing.scores.shape == (0,)


@pytest.mark.parametrize(
    ("users", "exclude", "match"),
    [
        (10, 3, "must be a list of item ids, got 3"),
        (10, "3", "must be a list of item ids, got '3'"),
        (10, ["3"], "excluded item ids: must be integers, got str '3'"),
        ([10, 20], [0, 3], "one list of item ids for each of the 2 users, got 0 at position 0"),
        ([10, 20], [[0]], "for each of the 2 users, got 1"),
        ([10, 20], [[0], [3], [6]], "for each of the 2 users, got 3"),
        ([10, 20], {10: [0], 20: [3]}, "got 10 at position 0"),
        ([10, 20], 3, "for each of the 2 users"),
        ([10], 3, "for each of the 1 users, got 3"),
        (10, [[0]], "excluded item ids: must be integers, got list"),
    ],
)
def test_exclusions_of_another_form_are_refused(scorer, users, exclude, match):
    with pytest.raises(InputError, match=match):
        scorer.recommend(users, exclude=exclude)


def test_equal_scores_are_in_catalogue_order(bundles, tables, tmp_path):
    flat = bundles.Tables(
        **{**vars(tables), "item_vectors": tables.item_vectors * 0, "item_bias": tables.item_bias * 0}
    )
    scorer = Scorer.load(bundles.write_bundle(tmp_path / "flat", flat))
    assert scorer.recommend(10, 100).items.tolist() == flat.item_ids.tolist()
    assert scorer.recommend(10, 3, exclude=flat.item_ids[:2]).items.tolist() == flat.item_ids[2:5].tolist()
    assert scorer.similar_items(flat.item_ids[0], 3).items.tolist() == flat.item_ids[1:4].tolist()


def test_a_bundle_with_both_units_scores_ratings_and_recommends_by_preferences(mixed_scorer, mixed_tables):
    tables, beside = mixed_tables, mixed_tables.beside
    for user in [*tables.user_ids.tolist(), tables.unknown_id]:
        scores = mixed_scorer.score(user, tables.item_ids)
        np.testing.assert_allclose(scores, tables.score([user] * len(tables.item_ids), tables.item_ids), atol=1e-5)
        assert scores.min() >= 0.5
        assert scores.max() <= 5
        top = mixed_scorer.recommend(user, 5, exclude=tables.item_ids[:2])
        assert top.items.tolist() == beside.recommend(user, 5, tables.item_ids[:2].tolist())
        np.testing.assert_allclose(top.scores, beside.score([user] * 5, top.items), atol=1e-5)
    assert mixed_scorer.recommend(30, 5).items.tolist() != replace(tables, beside=None).recommend(30, 5)


def test_seen_items_are_left_out_by_default(rich):
    scorer, tables = rich
    for user in [*tables.user_ids.tolist(), tables.unknown_id]:
        seen = set(tables.seen(user)[0])
        assert scorer.recommend(user, 4).items.tolist() == expected(tables, user, 4, lambda item, s=seen: item not in s)
        assert scorer.recommend(user, 4, exclude_seen=False).items.tolist() == tables.recommend(user, 4)
    top = scorer.recommend(tables.user_ids, 4)
    assert [items.tolist() for items, _ in top] == [scorer.recommend(u, 4).items.tolist() for u in tables.user_ids]


@pytest.mark.parametrize("rated", [True, False])
def test_items_of_all_parts_are_seen(tables, bundles, tmp_path, rated):
    trained = [(0, 1, 4.0), (2, 0, 3.0), (2, 5, 1.0)]
    rows = [(0, 1), (0, 4), (2, 0), (2, 5), (2, 2), (5, 10)]  # the training rows of each user first
    made = bundles.replace(bundles.make_rich(tables), history=trained if rated else None, seen_rows=rows)
    scorer = Scorer.load(bundles.write_bundle(tmp_path / "bundle", made))
    for index, user in enumerate(tables.user_ids.tolist()):
        seen = {tables.item_ids[item] for owner, item in rows if owner == index}
        top = expected(tables, user, 11, lambda item, s=seen: item not in s)
        assert scorer.recommend(user, 11).items.tolist() == top
        assert scorer.recommend_many([user], 11).items.tolist() == top
    if rated:
        assert scorer.history(tables.user_ids[2])[0].tolist() == tables.item_ids[[0, 5]].tolist()
    else:
        with pytest.raises(UnsupportedError, match="--with-history"):
            scorer.history(tables.user_ids[2])


def test_a_user_who_has_seen_all_items_but_one(rich):
    scorer, tables = rich
    second = tables.user_ids[1]
    assert scorer.recommend(second, 5).items.tolist() == [tables.item_ids[-1]]
    assert scorer.recommend(second, 5, exclude=[tables.item_ids[-1]]).items.tolist() == []


def test_exclusions_are_added_to_the_seen_items(rich):
    scorer, tables = rich
    users, out = tables.user_ids.tolist(), [tables.item_ids[[n, 3]].tolist() for n in range(len(tables.user_ids))]
    for user, excluded, top in zip(users, out, scorer.recommend(users, 3, exclude=out), strict=True):
        left_out = {*excluded, *tables.seen(user)[0]}
        assert top.items.tolist() == expected(tables, user, 3, lambda item, s=left_out: item not in s)


def test_only_allowed_items_that_are_not_denied_are_recommended(rich):
    scorer, tables = rich
    user, some = tables.user_ids[0], tables.item_ids[[7, 1, 4, 4]].tolist()
    with_unknown = [*some, tables.unknown_id]
    assert scorer.recommend(user, 9, allow=with_unknown).items.tolist() == expected(
        tables, user, 9, lambda i: i in some
    )
    assert scorer.recommend(user, 3, deny=with_unknown).items.tolist() == expected(
        tables, user, 3, lambda i: i not in some
    )
    assert scorer.recommend(user, 9, allow=some, deny=some[:1]).items.tolist() == expected(
        tables, user, 9, lambda i: i in some[1:]
    )
    assert scorer.recommend(user, 9, allow=[]).items.tolist() == []
    assert scorer.recommend(user, 3, deny=[]).items.tolist() == tables.recommend(user, 3)
    assert scorer.recommend(user, 3, allow=iter(some)).items.tolist() == expected(tables, user, 3, lambda i: i in some)
    top = scorer.recommend(user, 9, allow=some)
    if tables.beside is None:
        np.testing.assert_allclose(top.scores, scorer.score(user, top.items), rtol=1e-6)


def test_items_of_any_given_category_are_recommended(rich):
    scorer, tables = rich
    user = tables.user_ids[0]
    indices = {*tables.categories["Drama"], *tables.categories["Crime"]}
    items = set(tables.item_ids[list(indices)].tolist())
    assert scorer.recommend(user, 9, categories=["Crime", "Drama"]).items.tolist() == expected(
        tables, user, 9, lambda item: item in items
    )
    assert scorer.recommend(user, 9, categories="Sci-Fi & més").items.tolist() == [tables.item_ids[-1]]
    assert scorer.recommend(user, 9, categories=[]).items.tolist() == []


def test_rarely_rated_items_are_left_out_by_min_count(rich):
    scorer, tables = rich
    user, counts = tables.user_ids[0], dict(zip(tables.item_ids.tolist(), tables.counts, strict=True))
    for min_count in (0, 1, 3, 1000):
        assert scorer.recommend(user, 20, min_count=min_count).items.tolist() == expected(
            tables, user, 20, lambda item, n=min_count: counts[item] >= n
        )


@pytest.mark.parametrize(
    ("filters", "match"),
    [
        ({"categories": ["Drama", "Western"]}, "categories: must be known, got 'Western'; known are Crime, Drama, Sci"),
        ({"categories": 7}, "got 7"),
        ({"categories": [None]}, "got None"),
        ({"min_count": -1}, "min_count: must be an integer from 0"),
        ({"min_count": True}, "min_count"),
        ({"min_count": 1.5}, "min_count"),
        ({"allow": "drama"}, "allow: must be a list"),
        ({"deny": 3}, "deny: must be a list"),
        ({"allow": [1.5]}, "allow: item ids: must be"),
        ({"deny": [True]}, "deny: item ids: must be"),
        ({"diversity": -0.1}, "diversity: must be a number from 0"),
        ({"diversity": 1.1}, "diversity"),
        ({"diversity": float("nan")}, "diversity"),
        ({"diversity": "much"}, "diversity"),
    ],
)
def test_invalid_filters_are_refused(rich, filters, match):
    scorer, tables = rich
    with pytest.raises(InputError, match=match):
        scorer.recommend(tables.user_ids[0], 3, **filters)


def test_min_count_needs_rating_counts(bundles, tables, tmp_path):
    rich = bundles.replace(bundles.make_rich(tables), counts=None)
    scorer = Scorer.load(bundles.write_bundle(tmp_path / "bundle", rich))
    assert scorer.catalogue.counts is None
    with pytest.raises(UnsupportedError, match="min_count"):
        scorer.recommend(10, min_count=1)


def test_diverse_recommendations_are_selected_from_the_best(rich):
    scorer, tables = rich
    for user in tables.user_ids[[0, 2, 1]].tolist():
        candidates = scorer.recommend(user, candidate_count(4))
        rows = tables.rows(candidates.items, tables.item_ids)
        for diversity in (0.3, 1):
            indices = select_diverse(candidates.scores, tables.recommender.item_vectors[rows], 4, diversity)
            top = scorer.recommend(user, 4, diversity=diversity)
            assert top.items.tolist() == candidates.items[indices].tolist()
            np.testing.assert_allclose(top.scores, candidates.scores[indices], rtol=1e-5)
    assert scorer.recommend(tables.user_ids[0], 4, allow=[], diversity=0.5).items.tolist() == []
