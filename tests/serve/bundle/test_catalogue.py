"""The catalogue of a bundle: ids, counts, categories and indices."""

import numpy as np

from cflightning_serve import Scorer


def test_the_catalogue_equals_the_tables(rich):
    scorer, tables = rich
    catalogue = scorer.catalogue
    assert catalogue is scorer.catalogue
    assert catalogue.ids.tolist() == tables.item_ids.tolist()
    assert catalogue.counts.tolist() == tables.counts
    assert {name: places.tolist() for name, places in catalogue.categories.items()} == tables.categories
    assert catalogue.indices([*tables.item_ids[::-1], tables.unknown_id]).tolist() == [*range(10, -1, -1), -1]
    assert scorer.users().tolist() == tables.user_ids.tolist()
    assert scorer.users(2, 4).tolist() == tables.user_ids[2:4].tolist()


def test_a_catalogue_can_have_any_order(bundles, tables, tmp_path):
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
    assert scorer.recommend(10, 5, allow=some).items.tolist() == [
        item for item in mixed.recommend(10, 11) if item in some
    ]
