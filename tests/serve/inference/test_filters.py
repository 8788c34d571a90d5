"""Recommendations as they are used: parts of the catalogue, without what is known, made to differ; against numpy."""

import json
import shutil

import numpy as np
import pytest

from cflightning_serve import BundleError, InputError, Scorer, UnsupportedError
from cflightning_serve.inference.mmr import candidate_count, select_diverse


def nobody(tables):
    return 99_999 if tables.user_ids.dtype == np.int64 else "nobody"


def expected(tables, user, k, keep):
    """Ids by sorting all scores; `keep` says of an id whether it may stay."""
    return [item for item in tables.recommend(user, 10_000) if keep(item)][:k]


# History --------------------------------------------------------------------------------------------------------------


def test_what_was_seen_is_left_out_by_default(rich):
    scorer, tables = rich
    for user in [*tables.user_ids.tolist(), nobody(tables)]:
        seen = set(tables.seen(user)[0])
        assert scorer.recommend(user, 4).items.tolist() == expected(tables, user, 4, lambda item, s=seen: item not in s)
        assert scorer.recommend(user, 4, exclude_seen=False).items.tolist() == tables.recommend(user, 4)
    lists = scorer.recommend(tables.user_ids, 4)
    assert [top.items.tolist() for top in lists] == [scorer.recommend(u, 4).items.tolist() for u in tables.user_ids]


@pytest.mark.parametrize("rated", [True, False])
def test_rows_of_every_part_are_seen(tables, bundles, tmp_path, rated):
    trained = [(0, 1, 4.0), (2, 0, 3.0), (2, 5, 1.0)]
    rows = [(0, 1), (0, 4), (2, 0), (2, 5), (2, 2), (5, 10)]  # the training rows of a user first
    made = bundles.replace(bundles.make_rich(tables), history=trained if rated else None, seen_rows=rows)
    scorer = Scorer.load(bundles.write_bundle(tmp_path / "bundle", made))
    for place, user in enumerate(tables.user_ids.tolist()):
        seen = {tables.item_ids[item] for owner, item in rows if owner == place}
        best = expected(tables, user, 11, lambda item, s=seen: item not in s)
        assert scorer.recommend(user, 11).items.tolist() == best
        assert scorer.lists([user], 11).items.tolist() == best
    if rated:
        assert scorer.history(tables.user_ids[2])[0].tolist() == tables.item_ids[[0, 5]].tolist()
    else:
        with pytest.raises(UnsupportedError, match="--with-history"):
            scorer.history(tables.user_ids[2])


def test_the_second_user_has_seen_all_but_one(rich):
    scorer, tables = rich
    second = tables.user_ids[1]
    assert scorer.recommend(second, 5).items.tolist() == [tables.item_ids[-1]]
    assert scorer.recommend(second, 5, exclude=[tables.item_ids[-1]]).items.tolist() == []


def test_exclusions_and_history_add_up(rich):
    scorer, tables = rich
    users, out = tables.user_ids.tolist(), [tables.item_ids[[n, 3]].tolist() for n in range(len(tables.user_ids))]
    for user, left, top in zip(users, out, scorer.recommend(users, 3, exclude=out), strict=True):
        gone = {*left, *tables.seen(user)[0]}
        assert top.items.tolist() == expected(tables, user, 3, lambda item, g=gone: item not in g)


def test_histories_are_those_of_the_table(rich):
    scorer, tables = rich
    for user in [*tables.user_ids.tolist(), nobody(tables)]:
        items, ratings = scorer.history(user)
        assert (items.tolist(), ratings.tolist()) == tuple(map(list, tables.seen(user)))
        assert ratings.dtype == np.float32
    with pytest.raises(InputError, match="history: user must be one id"):
        scorer.history(tables.user_ids)


def test_questions_in_blocks_are_the_same(rich, in_small_blocks):
    scorer, tables = rich
    wishes = {"exclude": [tables.item_ids[n : n + 2] for n in range(7)], "allow": tables.item_ids[:9]}
    whole = [top.items.tolist() for top in scorer.recommend(tables.user_ids, 4, **wishes)]
    scorer = in_small_blocks(scorer)
    assert [top.items.tolist() for top in scorer.recommend(tables.user_ids, 4, **wishes)] == whole
    assert scorer.recommend([], 4, **wishes | {"exclude": []}) == []


# Parts of the catalogue -----------------------------------------------------------------------------------------------


def test_allow_and_deny(rich):
    scorer, tables = rich
    user, some = tables.user_ids[0], tables.item_ids[[7, 1, 4, 4]].tolist()
    strange = [*some, nobody(tables)]
    assert scorer.recommend(user, 9, allow=strange).items.tolist() == expected(tables, user, 9, lambda i: i in some)
    assert scorer.recommend(user, 3, deny=strange).items.tolist() == expected(tables, user, 3, lambda i: i not in some)
    assert scorer.recommend(user, 9, allow=some, deny=some[:1]).items.tolist() == expected(
        tables, user, 9, lambda i: i in some[1:]
    )
    assert scorer.recommend(user, 9, allow=[]).items.tolist() == []
    assert scorer.recommend(user, 3, deny=[]).items.tolist() == tables.recommend(user, 3)
    assert scorer.recommend(user, 3, allow=iter(some)).items.tolist() == expected(tables, user, 3, lambda i: i in some)
    top = scorer.recommend(user, 9, allow=some)
    if tables.beside is None:
        np.testing.assert_allclose(top.scores, scorer.score(user, top.items), rtol=1e-6)


def test_categories_are_any_of_them(rich):
    scorer, tables = rich
    user = tables.user_ids[0]
    places = {*tables.categories["Drama"], *tables.categories["Crime"]}
    items = set(tables.item_ids[list(places)].tolist())
    assert scorer.recommend(user, 9, categories=["Crime", "Drama"]).items.tolist() == expected(
        tables, user, 9, lambda item: item in items
    )
    assert scorer.recommend(user, 9, categories="Sci-Fi & més").items.tolist() == [tables.item_ids[-1]]
    assert scorer.recommend(user, 9, categories=[]).items.tolist() == []


def test_seldom_rated_items_can_be_left_out(rich):
    scorer, tables = rich
    user, counts = tables.user_ids[0], dict(zip(tables.item_ids.tolist(), tables.counts, strict=True))
    for least in (0, 1, 3, 1000):
        assert scorer.recommend(user, 20, min_count=least).items.tolist() == expected(
            tables, user, 20, lambda item, n=least: counts[item] >= n
        )


@pytest.mark.parametrize(
    ("wish", "says"),
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
def test_wishes_that_cannot_be(rich, wish, says):
    scorer, tables = rich
    with pytest.raises(InputError, match=says):
        scorer.recommend(tables.user_ids[0], 3, **wish)


def test_bundles_of_older_versions_say_what_they_lack(scorer, tables):
    user = tables.user_ids[0]
    for wish in ({"exclude_seen": True}, {"allow": [0]}, {"categories": "Drama"}, {"min_count": 1}, {"diversity": 0.5}):
        with pytest.raises(UnsupportedError, match="export"):
            scorer.recommend(user, 3, **wish)
    for ask in (scorer.users, lambda: scorer.history(user), lambda: scorer.factors(0), lambda: scorer.catalogue):
        with pytest.raises(UnsupportedError):
            ask()


# Catalogue and factors ------------------------------------------------------------------------------------------------


def test_the_catalogue_is_the_tables(rich):
    scorer, tables = rich
    catalogue = scorer.catalogue
    assert catalogue is scorer.catalogue
    assert catalogue.ids.tolist() == tables.item_ids.tolist()
    assert catalogue.counts.tolist() == tables.counts
    assert {name: places.tolist() for name, places in catalogue.categories.items()} == tables.categories
    assert catalogue.indices([*tables.item_ids[::-1], nobody(tables)]).tolist() == [*range(10, -1, -1), -1]
    assert scorer.users().tolist() == tables.user_ids.tolist()
    assert scorer.users(2, 4).tolist() == tables.user_ids[2:4].tolist()


def test_a_catalogue_in_any_order(bundles, tables, tmp_path):
    rows = np.argsort(tables.item_ids)[::-1]
    mixed = bundles.make_rich(
        bundles.replace(
            tables,
            item_ids=tables.item_ids[rows],
            item_vectors=tables.item_vectors[[0, *rows + 1]],
            item_bias=tables.item_bias[[0, *rows + 1]],
        )
    )
    scorer = Scorer.load(bundles.write_bundle(tmp_path / "bundle", mixed))
    assert scorer.catalogue.indices(mixed.item_ids).tolist() == [*range(11)]
    some = mixed.item_ids[[2, 9]].tolist()
    assert scorer.recommend(10, 5, allow=some).items.tolist() == expected(mixed, 10, 5, lambda item: item in some)


def test_factors_are_those_that_recommend(rich):
    scorer, tables = rich
    vectors = scorer.factors([*tables.item_ids, nobody(tables)])
    np.testing.assert_array_equal(vectors[:-1], tables.recommender.item_vectors[1:])
    assert not vectors[-1].any()
    np.testing.assert_array_equal(scorer.factors(tables.item_ids[4]), vectors[4])
    assert scorer.factors([]).shape == (0, vectors.shape[1])


@pytest.mark.parametrize(
    "change",
    [
        {"item": [1, 2]},
        {"item": [str(n) for n in range(11)]},
        {"item": [2**70, *range(10)]},
        {"count": [1.5] * 11},
        {"count": [-1] * 11},
        {"count": [1]},
        {"categories": []},
        {"categories": {"Drama": [11]}},
        {"categories": {"Drama": [-1]}},
        {"categories": {"Drama": [True]}},
        {"categories": {"Drama": 3}},
        None,
    ],
)
def test_damaged_catalogues_are_refused(bundles, tables, tmp_path, change):
    folder = bundles.write_bundle(tmp_path / "bundle", bundles.make_rich(tables))
    manifest = json.loads((folder / "manifest.json").read_text())
    about = json.loads((folder / "catalogue.json").read_text())
    (folder / "catalogue.json").write_text(json.dumps([] if change is None else about | change))
    bundles.write_manifest(folder, {key: value for key, value in manifest.items() if key != "files"})
    with pytest.raises(BundleError, match=r"catalogue\.json"):
        Scorer.load(folder).recommend(10, categories="Drama")


def test_a_catalogue_without_counts(bundles, tables, tmp_path):
    rich = bundles.replace(bundles.make_rich(tables), counts=None)
    scorer = Scorer.load(bundles.write_bundle(tmp_path / "bundle", rich))
    assert scorer.catalogue.counts is None
    with pytest.raises(UnsupportedError, match="min_count"):
        scorer.recommend(10, min_count=1)


def test_the_manifest_names_the_catalogue_among_its_files(bundles, tables, tmp_path):
    folder = bundles.write_bundle(tmp_path / "bundle", bundles.make_rich(tables))
    manifest = json.loads((folder / "manifest.json").read_text())
    assert Scorer.load(folder).manifest.catalogue == "catalogue.json"
    for name in ("other.json", "../catalogue.json", 5):
        bundles.seal(folder, manifest | {"catalogue": name})
        with pytest.raises(BundleError, match="catalogue"):
            Scorer.load(folder)
    bundles.seal(folder, manifest | {"catalogue": None})
    assert Scorer.load(folder).manifest.catalogue is None
    shutil.rmtree(folder)


# Diversity ------------------------------------------------------------------------------------------------------------


def slow_choice(scores, vectors, k, diversity):
    """Maximal marginal relevance, pair by pair in double precision."""
    scores, vectors = np.asarray(scores, float), np.asarray(vectors, float)
    low, high = scores.min(), scores.max()
    relevance = (scores - low) / (high - low) if high > low else np.ones(len(scores))

    def cosine(a, b):
        norms = np.linalg.norm(vectors[a]) * np.linalg.norm(vectors[b])
        return vectors[a] @ vectors[b] / norms if norms else 0.0

    chosen = [0]
    while len(chosen) < min(k, len(scores)):
        rest = [n for n in range(len(scores)) if n not in chosen]
        values = [
            (1 - diversity) * relevance[n] - diversity * max(cosine(n, already) for already in chosen) for n in rest
        ]
        chosen.append(rest[int(np.argmax(values))])
    return chosen


@pytest.mark.parametrize("diversity", [0.1, 0.5, 0.9, 1.0])
def test_choice_is_maximal_marginal_relevance(diversity):
    rng = np.random.default_rng(3)
    for pool in (1, 2, 30):
        scores = np.sort(rng.normal(size=pool).astype(np.float32))[::-1]
        vectors = rng.normal(size=(pool, 5)).astype(np.float32)
        vectors[pool // 2] = 0
        for k in (1, 7, 50):
            assert select_diverse(scores, vectors, k, diversity).tolist() == slow_choice(scores, vectors, k, diversity)


def test_a_copy_of_the_best_comes_last():
    scores = np.array([5, 4.9, 3, 1], np.float32)
    vectors = np.array([[1, 0], [1, 0], [0, 1], [-1, 0]], np.float32)
    assert select_diverse(scores, vectors, 4, 0.5).tolist() == [0, 3, 2, 1]
    assert select_diverse(scores, vectors, 4, 0.01).tolist() == [0, 1, 2, 3]
    assert select_diverse(np.ones(3, np.float32), np.ones((3, 2), np.float32), 3, 0.5).tolist() == [0, 1, 2]
    assert select_diverse(scores[:0], vectors[:0], 4, 0.5).tolist() == []


def test_diverse_lists(rich):
    scorer, tables = rich
    for user in tables.user_ids[[0, 2, 1]].tolist():
        pool = scorer.recommend(user, candidate_count(4))
        rows = tables.rows(pool.items, tables.item_ids)
        for diversity in (0.3, 1):
            places = slow_choice(pool.scores, tables.recommender.item_vectors[rows], 4, diversity)
            top = scorer.recommend(user, 4, diversity=diversity)
            assert top.items.tolist() == pool.items[places].tolist()
            np.testing.assert_allclose(top.scores, pool.scores[places], rtol=1e-5)
    assert scorer.recommend(tables.user_ids[0], 4, allow=[], diversity=0.5).items.tolist() == []
