"""Fold-in of new users and items, with the graphs of an independent writer, compared with numpy."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from cflightning_serve import BundleError, InputError, Scorer, UnsupportedError
from cflightning_serve.bundle.item_metadata import ItemMetadata
from cflightning_serve.bundle.loaded_files import LoadedFiles
from cflightning_serve.bundle.sessions import GraphSessions
from cflightning_serve.inference.fold_in import ratings_to_weights


def ratings_of(tables, scorer):
    """Return four rated items with their ratings, or None for a bundle without ratings."""
    ratings = None if scorer.manifest.rating_range is None else [4.5, 1.0, 3.0, 5.0]
    return tables.item_ids[[1, 5, 2, 8]].tolist(), ratings


def test_recommendations_and_scores_equal_those_of_numpy(folded, fold_in_graphs):
    scorer, tables = folded
    items, ratings = ratings_of(tables, scorer)
    numbers = np.full(len(items), np.nan) if ratings is None else ratings
    answering, scoring = fold_in_graphs.Reference(tables.recommender), fold_in_graphs.Reference(tables)
    scored = tables.item_ids[::-1].tolist()
    result = scorer.fold_in(items, ratings, k=3, score=scored)
    likes = np.full(len(items), np.nan) if tables.beside is not None else numbers
    assert result.items.tolist() == answering.best(items, likes, 3)
    np.testing.assert_allclose(result.scores, answering.score(items, likes, result.items.tolist()), atol=1e-4)
    np.testing.assert_allclose(result.requested_scores, scoring.score(items, numbers, scored), atol=1e-4)
    np.testing.assert_allclose(result.vector, answering.solve(items, likes)[0], atol=1e-4)
    assert result.known.tolist() == [True] * 4
    assert result.scores.dtype == result.requested_scores.dtype == result.vector.dtype == np.float32


def test_liked_items_without_ratings(folded, fold_in_graphs):
    scorer, tables = folded
    items, _ = ratings_of(tables, scorer)
    result = scorer.fold_in(items, k=100)
    assert result.items.tolist() == fold_in_graphs.Reference(tables.recommender).best(items, [np.nan] * 4, 100)
    assert not set(items) & set(result.items.tolist())
    assert len(result.items) == len(tables.item_ids) - 4
    assert np.isfinite(result.scores).all()
    assert result.requested_scores.shape == (0,)


def test_unknown_items_have_no_effect_and_no_items_are_allowed(folded):
    scorer, tables = folded
    items, ratings = ratings_of(tables, scorer)
    with_unknown = scorer.fold_in([tables.unknown_id, *items], None if ratings is None else [1.0, *ratings])
    without = scorer.fold_in(items, ratings)
    assert with_unknown.known.tolist() == [False, True, True, True, True]
    assert with_unknown.items.tolist() == without.items.tolist()
    np.testing.assert_allclose(with_unknown.vector, without.vector, atol=1e-5)
    nothing, unknown = scorer.fold_in([]), scorer.fold_in([tables.unknown_id])
    assert nothing.items.tolist() == unknown.items.tolist()
    assert nothing.known.shape == (0,)
    assert len(scorer.fold_in(tables.item_ids.tolist()).items) == 0


def test_exclusions_and_duplicates(folded):
    scorer, tables = folded
    items, ratings = ratings_of(tables, scorer)
    first = scorer.fold_in(items, ratings, k=1).items.tolist()
    rest = scorer.fold_in(items, ratings, k=100, exclude=[*first, *first, *items]).items.tolist()
    assert rest == scorer.fold_in(items, ratings, k=100).items.tolist()[1:]
    twice = scorer.fold_in([*items, *items], None if ratings is None else [*ratings, *ratings], k=100)
    assert sorted(map(str, twice.items)) == sorted(map(str, [*first, *rest]))
    array = scorer.fold_in(np.array(items), None if ratings is None else np.array(ratings, np.float64), k=100)
    assert array.items.tolist() == [*first, *rest]


@pytest.mark.parametrize(("arguments", "match"), [
    ({"items": [0], "ratings": [9.0]}, "must be from 0.5 to 5, got 9 at position 0"),
    ({"items": [0, 3], "ratings": [3.0, np.nan]}, "got nan at position 1"),
    ({"items": [0], "ratings": [np.inf]}, "got inf"),
    ({"items": [0, 3], "ratings": [3.0]}, "one number for each of the 2 ids, got 1"),
    ({"items": [0], "ratings": [[3.0]]}, "got shape"),
    ({"items": [0], "ratings": ["3"]}, "must be numbers"),
    ({"items": [0], "ratings": [True]}, "must be numbers"),
    ({"items": [0], "ratings": [None]}, "must be numbers"),
    ({"items": 0, "ratings": [3.0]}, "must be a list or an array"),
    ({"items": ["a"], "ratings": [3.0]}, "ids are integers"),
    ({"items": [0], "k": 0}, "k: must be an integer from 1"),
    ({"items": [0], "exclude": ["a"]}, "excluded item ids"),
    ({"items": [0], "score": 1.5}, "scored item ids"),
])  # fmt: skip
def test_invalid_arguments_are_refused(make_folded, arguments, match):
    with pytest.raises(InputError, match=match):
        make_folded("tables")[0].fold_in(**arguments)


def test_weights_must_be_positive(make_folded):
    scorer, tables = make_folded("choice_tables")
    scorer.fold_in(tables.item_ids[:2].tolist(), [2, 0.5])
    for bad in (0.0, -1.0, np.nan):
        with pytest.raises(InputError, match="weights above 0"):
            scorer.fold_in(tables.item_ids[:2].tolist(), [1.0, bad])


def test_a_bundle_without_the_graphs_refuses(scorer):
    for call in (lambda: scorer.fold_in([0]), lambda: scorer.explain(None, 0, items=[0]),
                lambda: scorer.fold_in_item([10])):  # fmt: skip
        with pytest.raises(UnsupportedError, match="export the bundle again"):
            call()


def test_a_graph_with_another_signature_is_refused(bundles, fold_in_graphs, tables, tmp_path):
    folder = fold_in_graphs.add(bundles.write_bundle(tmp_path / "bundle", tables), tables, bundles)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["graphs"]["fold_in"] = "explain.onnx"
    bundles.seal(folder, manifest)
    with pytest.raises(BundleError, match="inputs must be"):
        Scorer.load(folder).fold_in([0])


@pytest.mark.parametrize(
    ("limits", "ratings", "weights"),
    [
        ((1.0, 5.0), [5, 3, 1, 2], [2, 1, 1e-6, 0.5]),
        ((0.5, 5.0), [5, 2.75, 0.5], [2, 1, 1e-6]),
        ((-10.0, 10.0), [10, 0, -10, np.nan], [2, 1, 1e-6, np.nan]),
        ((3.0, 3.0), [3, 3], [np.nan, np.nan]),
        (None, [4.0, np.nan], [4.0, np.nan]),
    ],
)
def test_weights_are_relative_positions_in_the_rating_range(limits, ratings, weights):
    manifest = SimpleNamespace(rating_range=limits)
    result = ratings_to_weights(np.array(ratings, np.float32), manifest)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, weights, rtol=1e-6)


class RecordingSessions(GraphSessions):
    """Sessions that record the graph and the inputs of each call."""

    def __init__(self, manifest):
        super().__init__(manifest, LoadedFiles.load(manifest))
        self.calls = []

    def run(self, graph, outputs, inputs):
        self.calls.append((graph, inputs))
        return super().run(graph, outputs, inputs)


def test_low_ratings_have_low_weights_in_a_bundle_with_both_units(make_folded):
    scorer, tables = make_folded("mixed_tables")
    graphs = RecordingSessions(scorer.manifest)
    recording = Scorer(graphs, ItemMetadata(scorer.manifest, graphs.files))
    items = tables.item_ids[:2].tolist()
    low, high = scorer.manifest.rating_range
    recording.fold_in(items, [high, low], score=items)
    recording.explain(None, items[0], items=items, ratings=[high, low])
    ratings = {graph: inputs["rating"].tolist() for graph, inputs in graphs.calls if "rating" in inputs}
    weights = [2, np.float32(1e-6)]
    assert ratings == {"fold_in_choice": weights, "fold_in": [high, low], "explain": weights}
