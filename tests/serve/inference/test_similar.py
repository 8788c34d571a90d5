"""Similar items and item vectors, compared with numpy."""

import numpy as np
import pytest

from cflightning_serve import UnknownIdError


def test_similar_items_equal_those_of_numpy(plain, assert_same_top_k):
    scorer, tables = plain
    for n, item in enumerate(tables.item_ids):
        cosines = tables.cosines(item)
        top = scorer.similar_items(item, k=100)
        expected = [m for m in np.argsort(-cosines, kind="stable") if m != n]
        assert top.items.tolist() == tables.item_ids[expected].tolist()
        np.testing.assert_allclose(top.scores, cosines[expected], atol=1e-5)
    assert_same_top_k(
        scorer.similar_items(tables.item_ids, 4), [scorer.similar_items(item, 4) for item in tables.item_ids]
    )
    assert scorer.similar_items([]) == []


def test_unknown_items_are_refused(scorer, string_scorer):
    with pytest.raises(UnknownIdError, match="99999 was not seen in training") as caught:
        scorer.similar_items(99_999)
    assert isinstance(caught.value, KeyError)
    assert not str(caught.value).startswith(("'", '"'))
    with pytest.raises(UnknownIdError, match="4 of 5 were not seen in training: 1, 2, 4; check"):
        scorer.similar_items([1, 2, 3, 4, 5])
    with pytest.raises(UnknownIdError, match="'' was not seen"):
        string_scorer.similar_items("")


def test_a_bundle_with_both_units_compares_the_vectors_of_recommendations(mixed_scorer, mixed_tables):
    for n, item in enumerate(mixed_tables.item_ids):
        cosines = mixed_tables.beside.cosines(item)
        expected = [m for m in np.argsort(-cosines, kind="stable") if m != n]
        assert mixed_scorer.similar_items(item, 100).items.tolist() == mixed_tables.item_ids[expected].tolist()


def test_factors_are_the_vectors_of_recommendations(rich):
    scorer, tables = rich
    vectors = scorer.factors([*tables.item_ids, tables.unknown_id])
    np.testing.assert_array_equal(vectors[:-1], tables.recommender.item_vectors[1:])
    assert not vectors[-1].any()
    np.testing.assert_array_equal(scorer.factors(tables.item_ids[4]), vectors[4])
    assert scorer.factors([]).shape == (0, vectors.shape[1])
