"""Recommendations in bulk, compared with those of single users."""

import numpy as np
import pytest

from cflightning_serve import Scorer, UnsupportedError
from cflightning_serve.inference.bulk import recommend_in_bulk


@pytest.mark.parametrize("exclude_seen", [None, True, False])
def test_lists_equal_the_recommendations(rich, exclude_seen):
    scorer, tables = rich
    users = [*tables.user_ids[::-1], tables.unknown_id, tables.user_ids[0]]
    for k in (1, 4, 100):
        lists = recommend_in_bulk(
            scorer.graphs,
            lambda: scorer.catalogue,
            users,
            k,
            exclude_seen=exclude_seen,
            block_size=3 * len(tables.item_ids),
        )
        top = scorer.recommend(users, k, exclude_seen=exclude_seen)
        assert lists.counts.tolist() == [len(items) for items, _ in top]
        assert lists.items.tolist() == [item for items, _ in top for item in items.tolist()]
        np.testing.assert_allclose(lists.scores, np.concatenate([scores for _, scores in top]), rtol=1e-5, atol=1e-6)
    nothing = scorer.recommend_many([], 3)
    assert [len(part) for part in nothing] == [0, 0, 0]


def test_equal_scores_are_in_catalogue_order(bundles, tables, tmp_path):
    flat = bundles.replace(tables, item_vectors=np.zeros_like(tables.item_vectors), item_bias=np.zeros(12, np.float32))
    scorer = Scorer.load(bundles.write_bundle(tmp_path / "bundle", bundles.make_rich(flat)))
    options = {"exclude_seen": False}
    first = tables.item_ids[:5].tolist()
    assert scorer.recommend(10, 5, **options).items.tolist() == first
    assert (
        scorer.recommend(10, 5, deny=[tables.item_ids[1]], **options).items.tolist()
        == tables.item_ids[[0, 2, 3, 4, 5]].tolist()
    )
    assert scorer.recommend_many([10], 5, **options).items.tolist() == first


def test_older_bundles_support_lists_without_seen_items(scorer, tables):
    lists = scorer.recommend_many(tables.user_ids, 3)
    assert lists.items.reshape(-1, 3).tolist() == [top.items.tolist() for top in scorer.recommend(tables.user_ids, 3)]
    with pytest.raises(UnsupportedError):
        scorer.recommend_many(tables.user_ids, 3, exclude_seen=True)
