"""`fold_in` and `fold_in_item`, compared with the exact solution in double precision."""

import json

import numpy as np
import onnx
import pytest

from cflightning.data.ids import Ids
from cflightning_export.fold_in.newton import fold_in
from cflightning_export.fold_in.prior import estimate_prior
from cflightning_export.fold_in.spec import new_items, new_users
from cflightning_export.graphs.fold_in import fold_in_graph, fold_in_item_graph

from ..fold_in_data import ITEMS, SCALES, USERS, cost, fold, item_ids, make_tables, run, scores_of

SIGMOID = SCALES["sigmoid"]


@pytest.mark.parametrize("count", [0, 1, 20])
def test_a_folded_in_user_is_the_minimum(spec, count):
    rng = np.random.default_rng(count)
    low, high = spec.scale.rating_range
    index = rng.choice(np.arange(1, ITEMS + 1), count, replace=False)
    rating = rng.uniform(low, high, count).astype(np.float32)
    every = spec.ids.values
    answer = fold(fold_in_graph(spec), spec.ids, every[index - 1], rating, k=7, score=every)
    x = fold_in(spec, index, rating)
    logits, scores = scores_of(spec, x)
    np.testing.assert_allclose(answer["asked"], scores[1:], atol=5e-3 * (high - low))
    np.testing.assert_allclose(answer["vector"], x, atol=0.05)
    logits[[0, *index]] = -np.inf
    np.testing.assert_allclose(answer["score"], scores[spec.ids.indices(answer["best"])], atol=5e-3 * (high - low))
    np.testing.assert_allclose(
        answer["score"], np.sort(scores[np.argsort(-logits)[:7]])[::-1], atol=5e-3 * (high - low)
    )
    assert answer["known"].tolist() == [True] * count


@pytest.mark.slow
@pytest.mark.parametrize("count", [5, 20, 90, 900])
@pytest.mark.parametrize("kind", ["lowest", "highest", "one item", "both ends", "surprising"])
def test_damped_steps_reach_the_minimum_where_full_steps_overshoot(spec, count, kind):
    rng = np.random.default_rng(count)
    low, high = spec.scale.rating_range
    index = np.sort(rng.permutation(np.resize(np.arange(1, ITEMS + 1), count)))
    rating = np.full(count, high if kind == "highest" else low, np.float32)
    if kind == "one item":
        index[:] = 1 + np.argmax(spec.bias[1:])
    elif kind == "both ends":
        rating[::2] = high
    elif kind == "surprising":
        expected = scores_of(spec, spec.prior.mean)[1][index]
        rating[expected < np.median(expected)] = high
    every = spec.ids.values
    answer = fold(fold_in_graph(spec), spec.ids, every[index - 1], rating, score=every)
    x = fold_in(spec, index, rating)
    assert cost(spec, answer["vector"], index, rating) < 1.005 * cost(spec, x, index, rating)  # minima may be two
    if kind != "surprising":
        np.testing.assert_allclose(answer["asked"], scores_of(spec, x)[1][1:], atol=2e-3 * (high - low))


def test_rated_and_excluded_items_are_not_recommended_and_unknown_ones_are_ignored():
    tables = make_tables()
    ids = item_ids()
    prior = estimate_prior(tables, "user", SIGMOID)
    model = fold_in_graph(new_users(tables, ids, SIGMOID, prior))
    given = ids.values[:3].tolist()
    answer = fold(model, ids, [*given, -1], [5, 1, 3, 5], k=1000, exclude=[ids.values[9], -7])
    kept = answer["best"][np.isfinite(answer["score"])]
    assert sorted(kept) == sorted(set(ids.values.tolist()) - {*given, ids.values[9]})
    assert len(answer["best"]) == ITEMS
    assert answer["known"].tolist() == [True, True, True, False]
    without = fold(model, ids, given, [5, 1, 3])
    np.testing.assert_allclose(answer["vector"], without["vector"], atol=1e-6)
    liked = fold(model, ids, given, [np.nan] * 3)
    np.testing.assert_array_equal(liked["vector"], fold(model, ids, given, [1 + 0.9 * 4] * 3)["vector"])
    milder = fold_in_graph(new_users(tables, ids, SIGMOID, prior)._replace(liked_level=0.5))
    liked = fold(milder, ids, given, [np.nan] * 3)
    np.testing.assert_array_equal(liked["vector"], fold(model, ids, given, [3] * 3)["vector"])
    twice = fold(model, ids, [*given, *given], [5, 1, 3, 5, 1, 3])
    assert np.isfinite(twice["vector"]).all()


def test_a_new_item_is_folded_in_from_its_users():
    tables = make_tables()
    users = Ids(np.arange(USERS) * 2)
    prior = estimate_prior(tables, "item", SIGMOID)
    spec = new_items(tables, users, SIGMOID, prior)
    index = np.arange(1, 60)
    rating = np.random.default_rng(0).uniform(1, 5, 59).astype(np.float32)
    answer = run(fold_in_item_graph(spec), user=users.values[index - 1], rating=rating, score_user=users.values)
    x = fold_in(spec, index, rating)
    np.testing.assert_allclose(answer["asked"], scores_of(spec, x)[1][1:], atol=0.02)


def test_an_exported_run_folds_in_new_users(bundle):
    graphs = json.loads((bundle / "manifest.json").read_text())["graphs"]
    assert {"fold_in", "explain"} <= set(graphs)
    assert "fold_in_item" not in graphs
    model = onnx.load(bundle / "fold_in.onnx", load_external_data=False)
    assert [opset.version for opset in model.opset_import] == [18, 4]
    assert model.ir_version <= 10
    assert any(tensor.name == "prior_weights" for tensor in model.graph.initializer)  # the default has an SVD++ term
