"""Similar users and the audience of an item, compared with numpy."""

from dataclasses import replace

import numpy as np
import pytest

from cflightning_serve import InputError, Scorer, UnknownIdError, UnsupportedError


@pytest.fixture(scope="module")
def in_both_sizes(rich, in_small_blocks):
    """Scorers of one bundle with blocks of all users and of single ones, and its tables."""
    scorer, tables = rich
    return (scorer, in_small_blocks(scorer), in_small_blocks(scorer, 1)), tables


@pytest.fixture(scope="module")
def make_scorer(bundles, tmp_path_factory):
    """Function from tables to the scorer of their bundle."""
    return lambda tables: Scorer.load(bundles.write_bundle(tmp_path_factory.mktemp("users") / "bundle", tables))


def test_similar_users_equal_those_of_numpy(in_both_sizes):
    scorers, tables = in_both_sizes
    for scorer in scorers:
        for n, user in enumerate(tables.user_ids):
            cosines = tables.user_cosines(user)
            expected = [m for m in np.argsort(-cosines, kind="stable") if m != n]
            for k in (1, 3, 100):
                top = scorer.similar_users(user, k)
                assert top.users.tolist() == tables.user_ids[expected][:k].tolist()
                np.testing.assert_allclose(top.scores, cosines[expected][:k], atol=1e-5)
        several = scorer.similar_users(tables.user_ids, 4)
        single = [scorer.similar_users(user, 4) for user in tables.user_ids]
        assert [top.users.tolist() for top in several] == [top.users.tolist() for top in single]
        assert scorer.similar_users([]) == []


def test_the_audience_equals_that_of_numpy(in_both_sizes):
    scorers, tables = in_both_sizes
    for scorer in scorers:
        for item in tables.item_ids.tolist():
            seen = [user for user in tables.user_ids.tolist() if item in tables.seen(user)[0]]
            for exclude_seen in (None, True, False):
                users, scores = tables.audience(item, () if exclude_seen is False else seen)
                for k in (1, 3, 100):
                    top = scorer.audience(item, k, exclude_seen=exclude_seen)
                    assert top.users.tolist() == users[:k]
                    np.testing.assert_allclose(top.scores, scores[:k], rtol=1e-5, atol=1e-5)
        several = scorer.audience(tables.item_ids, 4)
        single = [scorer.audience(item, 4) for item in tables.item_ids]
        assert [top.users.tolist() for top in several] == [top.users.tolist() for top in single]
        assert scorer.audience([]) == []


def test_scores_of_an_audience_are_those_of_recommendations(rich):
    scorer, tables = rich
    for item in tables.item_ids.tolist():
        for user, score in zip(*scorer.audience(item, 3, exclude_seen=False), strict=True):
            top = scorer.recommend(user, 100, exclude_seen=False)
            assert top.scores[top.items.tolist().index(item)] == pytest.approx(score, rel=1e-5)


@pytest.mark.parametrize("strings", [False, True])
def test_many_users_of_whom_most_have_seen_the_item(bundles, make_scorer, strings):
    tables = bundles.make_tables(users=6000, items=6, strings=strings, seed=3)
    seen = np.random.default_rng(0).random(6000) < 0.99
    tables = replace(bundles.make_rich(tables), history=None, seen_rows=[(n, 2) for n in np.flatnonzero(seen)])
    users, scores = tables.audience(tables.item_ids[2], set(tables.user_ids[seen].tolist()))
    scorer = make_scorer(tables)
    for k in (1, 40, 1000):
        top = scorer.audience(tables.item_ids[2], k)
        np.testing.assert_allclose(top.scores, scores[:k], rtol=1e-5)
        assert set(top.users.tolist()) <= set(users)
    others = scorer.audience(tables.item_ids[3], 6000)
    assert sorted(others.users.tolist()) == sorted(tables.user_ids.tolist())


def test_ties_are_in_the_order_of_the_users(bundles, make_scorer, in_small_blocks):
    tables = bundles.make_rich(bundles.make_tables(users=9))
    vectors, bias = tables.user_vectors.copy(), np.zeros_like(tables.user_bias)
    vectors[1:] = vectors[1]
    vectors[4] *= -1
    scorer = make_scorer(replace(tables, user_vectors=vectors, user_bias=bias))
    for one in (scorer, in_small_blocks(scorer)):
        assert one.similar_users(20, 100).users.tolist() == [10, 30, 50, 60, 70, 80, 90, 40]
        first, *_, last = one.audience(0, 100, exclude_seen=False).users.tolist()
        assert {first, last} in ({10, 40}, {40, 90})


def test_a_user_with_a_zero_vector_is_similar_to_nobody(bundles, make_scorer):
    tables = bundles.make_rich(bundles.make_tables())
    vectors = tables.user_vectors.copy()
    vectors[2] = 0
    scorer = make_scorer(replace(tables, user_vectors=vectors))
    assert scorer.similar_users(20, 100).scores.tolist() == [0] * 6
    assert scorer.similar_users(10, 100).scores[scorer.similar_users(10, 100).users == 20] == 0


def test_the_only_user_has_no_similar_ones(bundles, make_scorer):
    tables = bundles.make_tables(users=1)
    rich = replace(bundles.make_rich(bundles.make_tables(users=2)), user_ids=tables.user_ids, history=[(0, 0, 1.0)],
                   user_vectors=tables.user_vectors, user_bias=tables.user_bias)  # fmt: skip
    scorer = make_scorer(rich)
    assert scorer.similar_users(10).users.tolist() == []
    assert scorer.audience(rich.item_ids[0]).users.tolist() == []
    assert scorer.audience(rich.item_ids[1]).users.tolist() == [10]


def test_unknown_ids_are_refused(rich):
    scorer, tables = rich
    unknown, known_user, known_item = tables.unknown_id, tables.user_ids[0], tables.item_ids[0]
    with pytest.raises(UnknownIdError, match=rf"similar_users: users must be known, {unknown!r} was not seen"):
        scorer.similar_users(unknown)
    with pytest.raises(UnknownIdError, match=r"1 of 2 were not seen in training.*check them with knows_user"):
        scorer.similar_users([known_user, unknown])
    with pytest.raises(UnknownIdError, match=rf"audience: items must be known, {unknown!r} was not seen"):
        scorer.audience(unknown)
    with pytest.raises(UnknownIdError, match=r"1 of 2 were not seen in training.*check them with knows_item"):
        scorer.audience([known_item, unknown])


@pytest.mark.parametrize("k", [0, -1, 1.5, True])
def test_k_must_be_positive(rich, k):
    scorer, tables = rich
    with pytest.raises(InputError, match="k: must be an integer from 1"):
        scorer.similar_users(tables.user_ids[0], k)
    with pytest.raises(InputError, match="k: must be an integer from 1"):
        scorer.audience(tables.item_ids[0], k)


def test_bundles_without_the_graphs_are_refused(scorer, bundles, make_scorer):
    with pytest.raises(UnsupportedError, match="has no graph 'similar_users'; export the bundle again with a model"):
        scorer.similar_users(10)
    with pytest.raises(UnsupportedError, match="has no graph 'audience'; export the bundle again with it"):
        scorer.audience(0)
    without_seen = make_scorer(replace(bundles.make_rich(bundles.make_tables()), history=None))
    assert len(without_seen.audience(0, 100).users) == 7
    with pytest.raises(UnsupportedError, match="has no graph 'seen'"):
        without_seen.audience(0, exclude_seen=True)
