"""`explain`: contributions of rated items, compared with the hat matrix in double precision."""

import numpy as np
import pytest

from cflightning.data.ids import Ids
from cflightning_export.fold_in.newton import fold_in
from cflightning_export.fold_in.prior import estimate_prior
from cflightning_export.fold_in.spec import new_users
from cflightning_export.graphs.explain import explain_graph, explain_implicit_graph
from cflightning_export.graphs.fold_in_implicit import fold_in_implicit_graph

from ..fold_in_data import DIM, SCALES, USERS, fold, implicit_spec, item_ids, make_tables, run, scores_of

SIGMOID = SCALES["sigmoid"]


def test_contributions_of_ratings_sum_to_the_logit_and_are_the_hat_matrix(spec):
    tables = make_tables()
    users = Ids(np.arange(USERS))
    model = explain_graph(spec, users, tables)
    rng = np.random.default_rng(1)
    low, high = spec.scale.rating_range
    index, target = np.arange(1, 16), np.arange(40, 50)
    rating = rng.uniform(low, high, 15).astype(np.float32)
    ids, none = spec.ids.values, np.empty(0, np.int64)
    answer = run(model, item=ids[index - 1], rating=rating, target=ids[target - 1], user=none)
    total = answer["contribution"].sum(1) + answer["base"]
    np.testing.assert_allclose(total + answer["rest"], answer["logit"], atol=2e-6)
    assert abs(answer["rest"]).max() < 1e-4 * max(1, abs(answer["logit"]).max())
    x = fold_in(spec, index, rating)
    logits, scores = scores_of(spec, x)
    np.testing.assert_allclose(answer["logit"], logits[target], atol=2e-3 * max(1, abs(logits).max()))
    np.testing.assert_allclose(answer["score"], scores[target], atol=1e-3 * (high - low))
    np.testing.assert_allclose(answer["base"], scores_of(spec, spec.prior.mean)[0][target], atol=1e-4)
    q = tables.item_vectors.double().numpy()
    cosine = q[target] @ q[index].T / np.outer(np.linalg.norm(q[target], axis=1), np.linalg.norm(q[index], axis=1))
    np.testing.assert_allclose(answer["similarity"], cosine, atol=1e-5)
    if not spec.scale.sigmoid and spec.prior.weights is None:
        z = np.column_stack([q, np.ones(len(q))])
        a = z[index].T @ z[index] + 0.45 * np.linalg.inv(spec.prior.root @ spec.prior.root.T)
        apart = rating - (spec.bias + spec.global_bias)[index] - z[index] @ spec.prior.mean
        expected = (z[target] @ np.linalg.inv(a) @ z[index].T) * apart
        np.testing.assert_allclose(answer["contribution"], expected, atol=1e-4)
    known = run(model, item=ids[index - 1], rating=rating, target=ids[target - 1], user=users.values[4:5])
    trained = tables.user_vectors[5].double().numpy() @ q[target].T + float(tables.user_bias[5])
    np.testing.assert_allclose(known["logit"], trained + (spec.bias + spec.global_bias)[target], atol=1e-5)
    np.testing.assert_array_equal(known["contribution"], answer["contribution"])
    parts = known["contribution"].sum(1) + known["base"] + known["rest"]
    np.testing.assert_allclose(parts, known["logit"], atol=2e-6 * max(1, abs(known["logit"]).max()))


def test_no_ratings_or_no_targets():
    tables = make_tables()
    spec = new_users(tables, item_ids(), SIGMOID, estimate_prior(tables, "user", SIGMOID))
    model = explain_graph(spec, Ids(np.arange(USERS)), tables)
    none, ids = np.empty(0, np.int64), spec.ids.values
    for item, target in ((none, ids[:2]), (none, none), (ids[:3], none), (np.array([-1]), ids[:2])):
        answer = run(model, item=item, rating=np.full(len(item), 4, np.float32), target=target, user=none)
        assert answer["contribution"].shape == (len(target), len(item))
        if not np.isin(item, ids).any():
            np.testing.assert_allclose(answer["base"], answer["logit"], atol=1e-5)


@pytest.mark.parametrize("weights", [[], [np.nan] * 3, [0.25, 0.125, 0.25], [3.0, 0.5, 1e-3]])
@pytest.mark.parametrize("length", [None, 1.7])
def test_contributions_of_implicit_feedback_sum_to_the_logit(length, weights):
    tables, mean_user = make_tables(), np.linspace(-1, 1, DIM, dtype=np.float32)
    spec = implicit_spec(length=length, mean_user=mean_user, user_bias=0.3)
    model = explain_implicit_graph(spec, Ids(np.arange(USERS)), tables)
    ids, none = spec.ids.values, np.empty(0, np.int64)
    item, target, rating = ids[[2, 16, 43][: len(weights)]], ids[50:60], np.array(weights, np.float32)
    answer = run(model, item=item, rating=rating, target=target, user=none)
    total = answer["contribution"].sum(1) + answer["base"]
    np.testing.assert_allclose(total, answer["logit"], atol=1e-4)
    folded = fold(fold_in_implicit_graph("fold_in_choice", spec), spec.ids, item, weights, score=target)
    np.testing.assert_allclose(answer["logit"], folded["asked"], atol=1e-5)
    missing = max(1 - np.nan_to_num(rating, nan=1).sum(), 0)
    base = missing * spec.vectors[51:61] @ mean_user + 0.3
    np.testing.assert_allclose(answer["base"], base, atol=1e-5)
