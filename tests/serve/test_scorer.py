"""Answers against numpy, in kind, at the edges and from many threads."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

from cflightning_serve import InputError, Scorer, TopK, UnknownIdError

UNKNOWN = 99_999


@pytest.fixture(params=["int", "string", "choice"])
def both(request):
    """Scorer and tables of a bundle with integer ids, of one with string ids, and of one of choices."""
    prefix = "" if request.param == "int" else f"{request.param}_"
    return request.getfixturevalue(f"{prefix}scorer"), request.getfixturevalue(f"{prefix}tables")


def nobody(tables):
    return UNKNOWN if tables.user_ids.dtype == np.int64 else "nobody"


# Score ----------------------------------------------------------------------------------------------------------------


def test_every_pair_scores_as_in_numpy(both):
    scorer, tables = both
    users = np.repeat(np.append(tables.user_ids, nobody(tables)), len(tables.item_ids) + 1)
    items = np.tile(np.append(tables.item_ids, nobody(tables)), len(tables.user_ids) + 1)
    scores = scorer.score(users, items)
    assert scores.dtype == np.float32
    assert scores.shape == users.shape
    np.testing.assert_allclose(scores, tables.score(users, items), atol=1e-5)
    low, high = scorer.manifest.rating_range or (-np.inf, np.inf)
    assert low <= scores.min() <= scores.max() <= high


def test_one_pair_is_a_float_and_the_same_as_in_an_array(both):
    scorer, tables = both
    user, item = tables.user_ids[0], tables.item_ids[-1]
    score = scorer.score(user, item)
    assert type(score) is float
    assert score == scorer.score([user], [item])[0]


def test_one_id_stands_for_every_pair(both):
    scorer, tables = both
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


def test_nothing_scores_to_nothing(both):
    scorer, _ = both
    for empty in ([], (), np.array([]), np.array([], dtype=object), pd.Series([], dtype=bool)):
        scores = scorer.score(empty, empty)
        assert scores.shape == (0,)
        assert scores.dtype == np.float32


def test_long_questions_are_asked_in_blocks(both, in_small_blocks):
    scorer, tables = both
    whole = scorer.score(tables.user_ids[0], tables.item_ids)
    best = scorer.recommend(tables.user_ids, 4, exclude=[tables.item_ids[n : n + 2] for n in range(7)])
    nearest = scorer.similar_items(tables.item_ids, 3)
    known = scorer.knows_item(tables.item_ids)
    scorer = in_small_blocks(scorer)
    np.testing.assert_allclose(scorer.score(tables.user_ids[0], tables.item_ids), whole, rtol=1e-6)
    assert_same(scorer.recommend(tables.user_ids, 4, exclude=[tables.item_ids[n : n + 2] for n in range(7)]), best)
    assert_same(scorer.similar_items(tables.item_ids, 3), nearest)
    np.testing.assert_array_equal(scorer.knows_item(tables.item_ids), known)


def assert_same(left, right):
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a.items.tolist() == b.items.tolist()
        np.testing.assert_allclose(a.scores, b.scores, rtol=1e-5, atol=1e-6)


# Recommend ------------------------------------------------------------------------------------------------------------


def test_the_best_are_those_of_numpy_and_score_as_pairs_do(both):
    scorer, tables = both
    for user in [*tables.user_ids, nobody(tables)]:
        best = scorer.recommend(user, k=5)
        assert isinstance(best, TopK)
        assert best.items.tolist() == tables.recommend(user, 5)
        assert best.scores.dtype == np.float32
        np.testing.assert_allclose(best.scores, scorer.score(user, best.items), rtol=1e-6)
        assert (np.diff(best.scores) <= 0).all()


def test_many_users_answer_as_each_alone(both):
    scorer, tables = both
    users = [*tables.user_ids, nobody(tables), tables.user_ids[0]]
    answers = scorer.recommend(users, 4)
    assert type(answers) is list
    assert_same(answers, [scorer.recommend(user, 4) for user in users])
    assert_same(scorer.recommend(users[:1], 4), [answers[0]])
    assert scorer.recommend([]) == []


def test_a_huge_k_gives_the_whole_catalogue(both):
    scorer, tables = both
    for k in (len(tables.item_ids), len(tables.item_ids) + 1, 2**31, 10**30, np.int64(100)):
        assert sorted(scorer.recommend(tables.user_ids[0], k).items) == sorted(tables.item_ids)
    assert len(scorer.recommend(tables.user_ids[0], 1).items) == 1


@pytest.mark.parametrize("k", [0, -1, True, 2.0, "3", None, np.float64(3)])
def test_a_k_that_is_no_count_is_refused(scorer, k):
    with pytest.raises(InputError, match="k: must be an integer from 1"):
        scorer.recommend(10, k)
    with pytest.raises(InputError, match="k: must be an integer from 1"):
        scorer.similar_items(0, k)


@pytest.mark.parametrize("container", [list, tuple, set, np.array, pd.Series, iter, lambda ids: dict.fromkeys(ids)])
def test_excluded_items_stay_out(both, container):
    scorer, tables = both
    user = tables.user_ids[2]
    out = tables.recommend(user, 3)
    best = scorer.recommend(user, 4, exclude=container(out))
    assert best.items.tolist() == tables.recommend(user, 4, out)
    np.testing.assert_allclose(best.scores, scorer.score(user, best.items), rtol=1e-6)


def test_each_user_has_exclusions_of_their_own(both):
    scorer, tables = both
    users = tables.user_ids[:4]
    out = [[], tables.recommend(users[1], 2), set(tables.item_ids), np.array(tables.recommend(users[3], 1))]
    answers = scorer.recommend(users, 3, exclude=out)
    for user, left_out, best in zip(users, out, answers, strict=True):
        assert best.items.tolist() == tables.recommend(user, 3, list(left_out))
    assert len(answers[2].items) == 0


def test_fillers_are_cut_off(both):
    scorer, tables = both
    keep = tables.item_ids[4]
    rest = [item for item in tables.item_ids if item != keep]
    best = scorer.recommend(tables.user_ids[0], 10, exclude=rest * 2 + [nobody(tables)])
    assert best.items.tolist() == [keep]
    assert np.isfinite(best.scores).all()
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


def test_equal_scores_stand_in_the_order_of_the_catalogue(bundles, tables, tmp_path):
    flat = bundles.Tables(
        **{**vars(tables), "item_vectors": tables.item_vectors * 0, "item_bias": tables.item_bias * 0}
    )
    scorer = Scorer.load(bundles.write_bundle(tmp_path / "flat", flat))
    assert scorer.recommend(10, 100).items.tolist() == flat.item_ids.tolist()
    assert scorer.recommend(10, 3, exclude=flat.item_ids[:2]).items.tolist() == flat.item_ids[2:5].tolist()
    assert scorer.similar_items(flat.item_ids[0], 3).items.tolist() == flat.item_ids[1:4].tolist()


# Similar, known, titles -----------------------------------------------------------------------------------------------


def test_the_nearest_are_those_of_numpy(both):
    scorer, tables = both
    for n, item in enumerate(tables.item_ids):
        cosines = tables.cosines(item)
        nearest = scorer.similar_items(item, k=100)
        expected = [m for m in np.argsort(-cosines, kind="stable") if m != n]
        assert nearest.items.tolist() == tables.item_ids[expected].tolist()
        np.testing.assert_allclose(nearest.scores, cosines[expected], atol=1e-5)
    assert_same(scorer.similar_items(tables.item_ids, 4), [scorer.similar_items(item, 4) for item in tables.item_ids])
    assert scorer.similar_items([]) == []


def test_unknown_items_have_no_likeness(scorer, string_scorer):
    with pytest.raises(UnknownIdError, match="99999 was not seen in training") as caught:
        scorer.similar_items(UNKNOWN)
    assert isinstance(caught.value, KeyError)
    assert not str(caught.value).startswith(("'", '"'))
    with pytest.raises(UnknownIdError, match="4 of 5 were not seen in training: 1, 2, 4; check"):
        scorer.similar_items([1, 2, 3, 4, 5])
    with pytest.raises(UnknownIdError, match="'' was not seen"):
        string_scorer.similar_items("")


def test_known_ids_are_told_from_unknown_ones_in_kind(both):
    scorer, tables = both
    for knows, ids in ((scorer.knows_user, tables.user_ids), (scorer.knows_item, tables.item_ids)):
        assert knows(ids[0]) is True
        assert knows(nobody(tables)) is False
        answer = knows([*ids, nobody(tables)])
        assert answer.dtype == np.bool_
        assert answer.tolist() == [True] * len(ids) + [False]
        assert knows([]).shape == (0,)


def test_titles(scorer, string_scorer, tables):
    assert scorer.title(-3) == "Film 0 (1900)"
    assert scorer.title(tables.item_ids[-1]) is None
    assert scorer.title(UNKNOWN) is None
    assert scorer.titles([0, UNKNOWN, 3]) == ["Film 1 (1901)", None, "Film 2 (1902)"]
    assert scorer.titles([]) == []
    assert string_scorer.title("i0") is None
    with pytest.raises(InputError, match="item must be one id, got 2"):
        scorer.title([0, 3])


# Loading and sharing --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [0, -1, True, 1.0, None])
def test_threads_are_counted(bundle, threads):
    with pytest.raises(InputError, match="threads: must be an integer from 1"):
        Scorer.load(bundle, threads=threads)


def test_more_threads_give_the_same_answers(bundle, tables):
    assert Scorer.load(bundle, threads=2).recommend(10, 5).items.tolist() == tables.recommend(10, 5)


def test_one_scorer_serves_many_threads(bundle, tables):
    scorer = Scorer.load(bundle)  # fresh: the lazy graphs are opened in the race
    users, items = tables.user_ids.tolist(), tables.item_ids.tolist()
    start = threading.Barrier(8)

    def ask(seed):
        rng = np.random.default_rng(seed)
        start.wait()
        for _ in range(150):
            user, item = int(rng.choice(users)), int(rng.choice(items))
            out = rng.choice(items, 3).tolist()
            assert scorer.recommend(user, 3, exclude=out).items.tolist() == tables.recommend(user, 3, out)
            assert abs(scorer.score(user, item) - tables.score([user], [item])[0]) < 1e-5
            assert item not in scorer.similar_items(item, 3).items
            assert scorer.title(item) == tables.titles.get(str(item))
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(8)))


def test_a_scorer_keeps_to_its_bundle_whatever_becomes_of_the_folder(bundles, tables, copy):
    scorer = Scorer.load(copy)
    before = scorer.score(10, 0)
    copy.rename(copy.with_name("old"))
    bundles.write_bundle(copy, bundles.make_tables(seed=5))
    assert scorer.score(10, 0) == before
    assert scorer.recommend(10, 3).items.tolist() == tables.recommend(10, 3)  # opened only now
    assert scorer.title(0) == tables.titles["0"]


def test_a_link_to_the_folder_may_move_on(bundle, string_bundle, tables, tmp_path):
    current = tmp_path / "current"
    current.symlink_to(bundle)
    scorer = Scorer.load(current)
    current.unlink()
    current.symlink_to(string_bundle)
    assert scorer.recommend(10, 3).items.tolist() == tables.recommend(10, 3)


@pytest.mark.parametrize("mapped", [False, True])
def test_tables_are_mapped_where_asked_for(bundles, tmp_path, mapped):
    tables = bundles.make_tables(users=300, items=500, dim=16)
    scorer = Scorer.load(bundles.write_bundle(tmp_path / "larger", tables), mapped=mapped)
    for user in tables.user_ids[:20]:
        assert scorer.recommend(user, 10).items.tolist() == tables.recommend(user, 10)
    with open("/proc/self/maps") as maps:
        assert any(line.rstrip().endswith("larger/weights.bin") for line in maps) is mapped


def test_a_catalogue_of_one(bundles, tmp_path):
    tables = bundles.make_tables(users=1, items=1, dim=1)
    scorer = Scorer.load(bundles.write_bundle(tmp_path / "one", tables))
    assert scorer.recommend(10, 5).items.tolist() == [-3]
    assert scorer.similar_items(-3).items.tolist() == []
