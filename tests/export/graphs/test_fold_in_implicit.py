"""`fold_in_choice`, compared with implicit ALS and with the normal equations."""

from dataclasses import replace

import numpy as np
import torch

from cflightning import EmbeddingDotTask
from cflightning.solvers.ials import AlternatingLeastSquares
from cflightning.utils.interactions import make_interactions
from cflightning_export.fold_in.implicit import implicit_fold_in_for
from cflightning_export.graphs.fold_in_implicit import fold_in_implicit_graph

from ..fold_in_data import DIM, ITEMS, USERS, fold, implicit_spec, item_ids, make_tables


def test_the_solution_is_that_of_implicit_als():
    spec = implicit_spec()
    interactions = make_interactions(*torch.ones(2, 1).int(), USERS + 1, ITEMS + 1)
    solver = AlternatingLeastSquares(interactions, weight=0.1, l2=0.02, exponent=0.8)
    index = np.array([3, 17, 44, 60])
    [expected] = solver.fold_in(torch.from_numpy(spec.vectors), [torch.from_numpy(index)]).numpy()
    answer = fold(
        fold_in_implicit_graph("fold_in_choice", spec), spec.ids, spec.ids.values[index - 1], [np.nan] * 4, k=5
    )
    np.testing.assert_allclose(answer["vector"][:-1], expected, atol=1e-4)
    scores = spec.vectors[1:] @ expected
    scores[index - 1] = -np.inf
    assert answer["best"].tolist() == spec.ids.values[np.argsort(-scores)[:5]].tolist()
    one = fold(fold_in_implicit_graph("fold_in_choice", spec), spec.ids, spec.ids.values[index - 1], np.ones(4))
    np.testing.assert_array_equal(one["vector"], answer["vector"])


def test_weights_of_items_and_the_length_of_the_solution():
    spec = implicit_spec(unit=2.0, length=1.7, user_bias=0.3)
    index, weight = np.array([3, 17, 44]), np.array([1.0, 4.0, 0.5])
    answer = fold(fold_in_implicit_graph("fold_in_choice", spec), spec.ids, spec.ids.values[index - 1], weight)
    q = spec.vectors.astype(float) / 2
    a = q[index].T @ (q[index] * weight[:, None]) + 0.1 * q.T @ q + 0.02 * (3 + 0.1 * ITEMS) ** 0.8 * np.eye(DIM)
    p = np.linalg.solve(a, q[index].T @ weight)
    np.testing.assert_allclose(answer["vector"], [*(1.7 * p / np.linalg.norm(p)), 0.3], atol=1e-4)
    nothing = fold(fold_in_implicit_graph("fold_in_choice", spec), spec.ids, [], [])
    np.testing.assert_allclose(nothing["vector"][:-1], 0, atol=1e-6)


def test_only_implicit_als_keeps_the_length_of_the_minimum():
    task = EmbeddingDotTask(ranking={"objective": "ials"})
    assert implicit_fold_in_for(task, make_tables(), item_ids()).length is None
    task.metadata = replace(task.metadata, objective="bce")
    assert implicit_fold_in_for(task, make_tables(), item_ids()).length > 0


def test_a_user_without_known_items_is_the_mean_user():
    mean_user = np.linspace(-1, 1, DIM, dtype=np.float32)
    spec = implicit_spec(mean_user=mean_user, user_bias=0.3)
    model = fold_in_implicit_graph("fold_in_choice", spec)
    best = np.argsort(-(spec.vectors[1:] @ mean_user), kind="stable")[:5]
    for items in ([], [-7, -8]):
        answer = fold(model, spec.ids, items, np.full(len(items), np.nan), k=5)
        np.testing.assert_allclose(answer["vector"], [*mean_user, 0.3], atol=1e-6)
        assert answer["best"].tolist() == spec.ids.values[best].tolist()
    stretched = fold_in_implicit_graph("fold_in_choice", implicit_spec(mean_user=mean_user, length=1.7))
    for graph in (model, stretched):
        disliked = fold(graph, spec.ids, [spec.ids.values[2]], [1e-3])["vector"][:-1]
        np.testing.assert_allclose(disliked, mean_user, atol=0.01)
    with_one = fold(model, spec.ids, [-7, spec.ids.values[2]], [np.nan] * 2)
    alone = fold(
        fold_in_implicit_graph("fold_in_choice", implicit_spec(user_bias=0.3)), spec.ids, [spec.ids.values[2]], [np.nan]
    )
    np.testing.assert_allclose(with_one["vector"], alone["vector"], atol=1e-6)
