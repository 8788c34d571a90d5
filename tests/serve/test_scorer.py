"""``Scorer``: loading, sharing between threads, blocks of calls."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from cflightning_serve import InputError, Scorer, UnsupportedError


@pytest.mark.parametrize("threads", [0, -1, True, 1.0, None])
def test_an_invalid_number_of_threads_is_refused(bundle, threads):
    with pytest.raises(InputError, match="threads: must be an integer from 1"):
        Scorer.load(bundle, threads=threads)


def test_more_threads_give_the_same_results(bundle, tables):
    assert Scorer.load(bundle, threads=2).recommend(10, 5).items.tolist() == tables.recommend(10, 5)


def test_threads_can_share_a_scorer(bundle, tables):
    scorer = Scorer.load(bundle)  # a new one, so that the threads open the graphs concurrently
    users, items = tables.user_ids.tolist(), tables.item_ids.tolist()
    start = threading.Barrier(8)

    def call(seed):
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
        assert all(pool.map(call, range(8)))


def test_changes_of_the_folder_do_not_affect_a_loaded_scorer(bundles, tables, copy):
    scorer = Scorer.load(copy)
    before = scorer.score(10, 0)
    copy.rename(copy.with_name("old"))
    bundles.write_bundle(copy, bundles.make_tables(seed=5))
    assert scorer.score(10, 0) == before
    assert scorer.recommend(10, 3).items.tolist() == tables.recommend(10, 3)  # the graph is opened only here
    assert scorer.title(0) == tables.titles["0"]


def test_a_link_to_the_folder_can_be_changed(bundle, string_bundle, tables, tmp_path):
    current = tmp_path / "current"
    current.symlink_to(bundle)
    scorer = Scorer.load(current)
    current.unlink()
    current.symlink_to(string_bundle)
    assert scorer.recommend(10, 3).items.tolist() == tables.recommend(10, 3)


@pytest.mark.parametrize("mapped", [False, True])
def test_tables_are_memory_mapped_on_request(bundles, tmp_path, mapped):
    tables = bundles.make_tables(users=300, items=500, dim=16)
    scorer = Scorer.load(bundles.write_bundle(tmp_path / "larger", tables), mapped=mapped)
    for user in tables.user_ids[:20]:
        assert scorer.recommend(user, 10).items.tolist() == tables.recommend(user, 10)
    with open("/proc/self/maps") as maps:
        assert any(line.rstrip().endswith("larger/weights.bin") for line in maps) is mapped


def test_a_catalogue_of_one_item(bundles, tmp_path):
    tables = bundles.make_tables(users=1, items=1, dim=1)
    scorer = Scorer.load(bundles.write_bundle(tmp_path / "one", tables))
    assert scorer.recommend(10, 5).items.tolist() == [-3]
    assert scorer.similar_items(-3).items.tolist() == []


def test_calls_in_small_blocks_give_the_same_results(plain, in_small_blocks, assert_same_top_k):
    scorer, tables = plain
    scores = scorer.score(tables.user_ids[0], tables.item_ids)
    recommended = scorer.recommend(tables.user_ids, 4, exclude=[tables.item_ids[n : n + 2] for n in range(7)])
    nearest = scorer.similar_items(tables.item_ids, 3)
    known = scorer.knows_item(tables.item_ids)
    scorer = in_small_blocks(scorer)
    np.testing.assert_allclose(scorer.score(tables.user_ids[0], tables.item_ids), scores, rtol=1e-6)
    assert_same_top_k(
        scorer.recommend(tables.user_ids, 4, exclude=[tables.item_ids[n : n + 2] for n in range(7)]), recommended
    )
    assert_same_top_k(scorer.similar_items(tables.item_ids, 3), nearest)
    np.testing.assert_array_equal(scorer.knows_item(tables.item_ids), known)


def test_filtered_calls_in_small_blocks_give_the_same_results(rich, in_small_blocks):
    scorer, tables = rich
    filters = {"exclude": [tables.item_ids[n : n + 2] for n in range(7)], "allow": tables.item_ids[:9]}
    scores = [top.items.tolist() for top in scorer.recommend(tables.user_ids, 4, **filters)]
    scorer = in_small_blocks(scorer)
    assert [top.items.tolist() for top in scorer.recommend(tables.user_ids, 4, **filters)] == scores
    assert scorer.recommend([], 4, **filters | {"exclude": []}) == []


def test_requests_that_an_older_bundle_does_not_support_are_refused(scorer, tables):
    user = tables.user_ids[0]
    for filters in (
        {"exclude_seen": True},
        {"allow": [0]},
        {"categories": "Drama"},
        {"min_count": 1},
        {"diversity": 0.5},
    ):
        with pytest.raises(UnsupportedError, match="export"):
            scorer.recommend(user, 3, **filters)
    for call in (scorer.users, lambda: scorer.history(user), lambda: scorer.factors(0), lambda: scorer.catalogue):
        with pytest.raises(UnsupportedError):
            call()
