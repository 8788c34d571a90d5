"""Graphs of new users, new items and reasons against slow solutions in double precision."""

import json
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pandas as pd
import pytest
import torch
from lightning.pytorch import Trainer

from cflightning import EmbeddingDotTask, RatingsDataModule
from cflightning.data.ids import Ids
from cflightning.data.splits.options import SplitOptions
from cflightning.data.vocabulary import Vocabulary
from cflightning.errors import ExportError
from cflightning.models.network import FoldedTables, RatingScale
from cflightning.solvers.ials import Ials
from cflightning_export.contents.networks import BundleNetworks, bundle_networks
from cflightning_export.fold_in.implicit import ImplicitFoldIn, implicit_fold_in_for
from cflightning_export.fold_in.newton import fold_in
from cflightning_export.fold_in.plan import FoldInSpecs, fold_in_specs
from cflightning_export.fold_in.prior import estimate_prior, information, shrunk_covariance, unshrink
from cflightning_export.fold_in.spec import new_items, new_users
from cflightning_export.graphs import explain, fold_in_implicit
from cflightning_export.graphs import fold_in as fold_in_module
from cflightning_export.graphs.base import BundleSource
from cflightning_export.graphs.explain import explain_graph, explain_implicit_graph
from cflightning_export.graphs.fold_in import fold_in_graph, fold_in_item_graph
from cflightning_export.graphs.fold_in_implicit import fold_in_implicit_graph

USERS, ITEMS, DIM = 200, 90, 12
SCALES = {
    "sigmoid": RatingScale((1.0, 5.0), True, 0.125),
    "other range": RatingScale((-10.0, 10.0), True, 0.125),
    "bare sigmoid": RatingScale((0.0, 1.0), True, 0.0),
    "identity": RatingScale((1.0, 5.0), False),
}


def tables(seed=0, scale=0.35):
    generator = torch.Generator().manual_seed(seed)

    def draw(rows, *width):
        table = scale * torch.randn(rows + 1, *width, generator=generator)
        table[0] = 0
        return table

    return FoldedTables(draw(USERS, DIM), draw(ITEMS, DIM), draw(USERS), draw(ITEMS), torch.tensor(0.4))


def bags(seed=3):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"user_factors.vectors": (ITEMS + 1, DIM), "user_bias.vectors": (ITEMS + 1, 1),
              "user_factors.mean": (USERS + 1, DIM), "user_bias.mean": (USERS + 1, 1)}  # fmt: skip
    return {name: 0.1 * torch.randn(*shape, generator=generator) for name, shape in shapes.items()}


def item_ids(strings=False):
    values = [f"{n:03d}é" for n in range(ITEMS)] if strings else list(range(5, 5 + 3 * ITEMS, 3))
    return Ids(np.array(values, dtype=object if strings else np.int64))


def ask(model, **feeds):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def fold(model, ids, item, rating, k=10, exclude=(), score=()):
    kind = ids.values.dtype
    return ask(model, item=np.array(item, kind), rating=np.array(rating, np.float32), k=np.array([k]),
               exclude_item=np.array(exclude, kind), score_item=np.array(score, kind))  # fmt: skip


def scores_of(folding, x):
    logits = folding.vectors.astype(float) @ x[:-1] + x[-1] + folding.bias + folding.global_bias
    scale = folding.scale
    scores = scale.low + (scale.high - scale.low) / (1 + np.exp(-logits)) if scale.sigmoid else logits
    return logits, scores.clip(*scale.rating_range)


def cost(folding, x, row, rating):
    """Return the minimised sum at x."""
    low, high = folding.scale.rating_range
    logits, _ = scores_of(folding, x)
    width = folding.scale.high - folding.scale.low
    scores = folding.scale.low + width / (1 + np.exp(-logits)) if folding.scale.sigmoid else logits
    mean, leaning = folding.prior.mean, folding.prior.weights
    if leaning is not None:
        mean = mean + leaning.vectors[row].astype(float).sum(0) @ leaning.directions / (len(row) + 1) ** 0.5
    y = np.linalg.solve(folding.prior.root, x - mean)
    return ((scores[row] - rating) ** 2).sum() / (0.45 / 16 * (high - low) ** 2) + y @ y


# Priors ---------------------------------------------------------------------------------------------------------------


SIGMOID = SCALES["sigmoid"]


def test_the_prior_is_the_distribution_of_trained_rows():
    found = tables()
    vectors, bias = found.user_vectors.clone(), found.user_bias.clone()
    vectors[7], bias[7] = 0, 0  # never trained
    prior = estimate_prior(found._replace(user_vectors=vectors, user_bias=bias), "user", SIGMOID)
    rows = np.delete(np.column_stack([vectors, bias]).astype(float), [0, 7], axis=0)
    np.testing.assert_allclose(prior.mean, rows.mean(0))
    np.testing.assert_allclose(np.diag(prior.root @ prior.root.T), rows.var(0, ddof=1), rtol=1e-9)
    assert prior.weights is None


def test_variances_are_those_of_true_rows():
    """Rows drawn from N(m, S) are rated through the identity and estimated as they should be; S is found again."""
    rng, scale = np.random.default_rng(0), SCALES["identity"]
    noise, width, count = 0.45, 4, 9
    mix = 0.4 * rng.normal(size=(width, width))
    truth, mean = mix @ mix.T, rng.normal(size=width)
    z = np.column_stack([0.4 * rng.normal(size=(count, width - 1)), np.ones(count)])
    rows = rng.multivariate_normal(mean, truth, 200_000)
    rated = rows @ z.T + noise**0.5 * rng.normal(size=(len(rows), count))
    said = information(np.column_stack([z[:, :-1], np.zeros(count)]), np.full(count, 1 / count), 0.0, scale)
    said *= count / noise
    np.testing.assert_allclose(said, z.T @ z / noise)
    estimates = mean + (rated - z @ mean) @ (z / noise) @ np.linalg.inv(said + np.linalg.inv(truth))
    spread = np.cov(estimates.T)
    assert abs(spread - truth).max() > 0.1
    np.testing.assert_allclose(unshrink(spread, said), truth, atol=0.02)


def test_what_variances_have_to_fulfil():
    rng = np.random.default_rng(1)
    spread, said = (part @ part.T for part in rng.normal(size=(2, 6, 9)))
    found = unshrink(spread, said)
    np.testing.assert_allclose(found, spread + np.linalg.inv(np.linalg.inv(found) + said), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(unshrink(spread, 1e12 * said), spread, rtol=1e-5)
    bounded = unshrink(spread, 1e-12 * said)
    np.testing.assert_allclose(bounded, 30 * spread, rtol=1e-4)
    assert not unshrink(np.zeros((3, 3)), np.eye(3)).any()
    assert np.isfinite(unshrink(spread[:3, :3], np.diag([1.0, 2.0, 0.0]))).all()


def test_information_is_the_curvature_of_the_error():
    """Compute the curvature by differences of half the expected squared error, at targets that are met exactly."""
    other = np.random.default_rng(2).normal(size=(30, 5))
    share, point, scale = np.full(30, 1 / 30), np.zeros(5), SCALES["other range"]

    def score(x):
        logit = torch.from_numpy(0.3 + other[:, -1] + other[:, :-1] @ x[:-1] + x[-1])
        return scale.low + (scale.high - scale.low) * torch.sigmoid(logit).numpy()

    target, steps = score(point), 1e-3 * np.eye(5)

    def error(x):
        return share @ (score(x) - target) ** 2 / 2

    curvature = [[(error(point + a + b) - error(point + a - b) - error(point - a + b) + error(point - a - b)) / 4e-6
                  for a in steps] for b in steps]  # fmt: skip
    np.testing.assert_allclose(information(other, share, 0.3, scale), curvature, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("side", ["user", "item"])
def test_counts_make_the_prior_wider(side):
    found, kept = tables(), bags()
    narrow, wide, many = (
        estimate_prior(found, side, SIGMOID, counts, kept)
        for counts in (None, np.full(ITEMS, 5), np.full(ITEMS, 10**9))
    )
    before, after, sure = (np.trace(prior.root @ prior.root.T) for prior in (narrow, wide, many))
    assert after > 1.1 * before
    if side == "item":  # frequently rated items have small variances; only users have an SVD++ term here
        assert sure == pytest.approx(before, rel=1e-3)
    nothing = estimate_prior(found, side, SIGMOID, np.zeros(ITEMS, np.int64), kept)
    np.testing.assert_array_equal(nothing.root, narrow.root)


def test_correlations_shrink_where_rows_are_few():
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(8, 8))
    many, few = rng.normal(size=(50_000, 8)) @ mix, rng.normal(size=(6, 8)) @ mix
    np.testing.assert_allclose(shrunk_covariance(many), mix.T @ mix, atol=0.3)
    plain = np.cov(few.T)
    assert np.linalg.matrix_rank(plain) < 8
    assert np.linalg.eigvalsh(shrunk_covariance(few)).min() > 1e-3
    np.testing.assert_allclose(np.diag(shrunk_covariance(few)), np.diag(plain))
    for rows in (few[:1], few[:0], np.zeros((5, 8))):
        assert not shrunk_covariance(rows).any()


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_hardly_any_users(rows):
    found = FoldedTables(
        torch.randn(rows + 1, 3), torch.randn(5, 3), torch.zeros(rows + 1), torch.zeros(5), torch.zeros(())
    )
    prior = estimate_prior(found, "user", SIGMOID, np.full(4, 2))
    assert np.isfinite(prior.mean).all()
    assert np.linalg.matrix_rank(prior.root) == 4


@pytest.mark.parametrize(("counts", "trust"), [(None, 0.5), (np.full(ITEMS, 25), 0.2), (np.full(ITEMS, 300), 0.75)])
def test_bags_move_the_mean_and_leave_their_share(counts, trust):
    found, kept = tables(), bags()
    prior = estimate_prior(found, "user", SIGMOID, counts, kept)
    learnt = torch.cat([kept["user_factors.vectors"], kept["user_bias.vectors"]], 1).double().numpy()
    np.testing.assert_allclose(prior.weights.vectors @ prior.weights.directions, trust * learnt, atol=1e-6)
    mean = torch.cat([kept["user_factors.mean"], kept["user_bias.mean"]], 1).double().numpy()[1:]
    rows = np.column_stack([found.user_vectors, found.user_bias]).astype(float)[1:] - trust * mean
    np.testing.assert_allclose(prior.mean, rows.mean(0), atol=1e-7)
    other = {name: value[:, :1] for name, value in kept.items()}  # another network
    assert estimate_prior(found, "user", SIGMOID, counts, other).weights is None
    assert estimate_prior(found, "item", SIGMOID, counts, kept).weights is None


# Ratings --------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=[*SCALES, "sigmoid, svdpp", "identity, svdpp"])
def folding(request):
    name, _, with_bags = request.param.partition(", ")
    found = tables()
    prior = estimate_prior(found, "user", SCALES[name], np.full(ITEMS, 30), bags() if with_bags else None)
    return new_users(found, item_ids(strings="range" in name), SCALES[name], prior)


@pytest.mark.parametrize("count", [0, 1, 20])
def test_folded_in_users_are_the_minimum(folding, count):
    rng = np.random.default_rng(count)
    low, high = folding.scale.rating_range
    row = rng.choice(np.arange(1, ITEMS + 1), count, replace=False)
    rating = rng.uniform(low, high, count).astype(np.float32)
    every = folding.ids.values
    found = fold(fold_in_graph(folding), folding.ids, every[row - 1], rating, k=7, score=every)
    x = fold_in(folding, row, rating)
    logits, scores = scores_of(folding, x)
    np.testing.assert_allclose(found["asked"], scores[1:], atol=5e-3 * (high - low))
    np.testing.assert_allclose(found["vector"], x, atol=0.05)
    logits[[0, *row]] = -np.inf
    np.testing.assert_allclose(found["score"], scores[folding.ids.indices(found["best"])], atol=5e-3 * (high - low))
    np.testing.assert_allclose(found["score"], np.sort(scores[np.argsort(-logits)[:7]])[::-1], atol=5e-3 * (high - low))
    assert found["known"].tolist() == [True] * count


@pytest.mark.parametrize("count", [5, 20, 90, 900])
@pytest.mark.parametrize("kind", ["lowest", "highest", "one item", "both ends", "surprising"])
def test_ratings_that_full_steps_overshoot(folding, count, kind):
    rng = np.random.default_rng(count)
    low, high = folding.scale.rating_range
    row = np.sort(rng.permutation(np.resize(np.arange(1, ITEMS + 1), count)))
    rating = np.full(count, high if kind == "highest" else low, np.float32)
    if kind == "one item":
        row[:] = 1 + np.argmax(folding.bias[1:])
    elif kind == "both ends":
        rating[::2] = high
    elif kind == "surprising":
        expected = scores_of(folding, folding.prior.mean)[1][row]
        rating[expected < np.median(expected)] = high
    every = folding.ids.values
    found = fold(fold_in_graph(folding), folding.ids, every[row - 1], rating, score=every)
    x = fold_in(folding, row, rating)
    assert cost(folding, found["vector"], row, rating) < 1.005 * cost(folding, x, row, rating)  # minima may be two
    if kind != "surprising":
        np.testing.assert_allclose(found["asked"], scores_of(folding, x)[1][1:], atol=2e-3 * (high - low))


def test_what_is_left_out_and_what_is_unknown():
    found = tables()
    ids = item_ids()
    prior = estimate_prior(found, "user", SIGMOID)
    model = fold_in_graph(new_users(found, ids, SCALES["sigmoid"], prior))
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
    milder = fold_in_graph(new_users(found, ids, SCALES["sigmoid"], prior)._replace(liked_level=0.5))
    liked = fold(milder, ids, given, [np.nan] * 3)
    np.testing.assert_array_equal(liked["vector"], fold(model, ids, given, [3] * 3)["vector"])
    twice = fold(model, ids, [*given, *given], [5, 1, 3, 5, 1, 3])
    assert np.isfinite(twice["vector"]).all()


def test_new_items_are_the_same_with_tables_swapped():
    found = tables()
    users = Ids(np.arange(USERS) * 2)
    prior = estimate_prior(found, "item", SIGMOID)
    folding = new_items(found, users, SCALES["sigmoid"], prior)
    row = np.arange(1, 60)
    rating = np.random.default_rng(0).uniform(1, 5, 59).astype(np.float32)
    answer = ask(fold_in_item_graph(folding), user=users.values[row - 1], rating=rating, score_user=users.values)
    x = fold_in(folding, row, rating)
    np.testing.assert_allclose(answer["asked"], scores_of(folding, x)[1][1:], atol=0.02)


def test_reasons_add_up_and_are_the_hat_matrix(folding):
    found = tables()
    users = Ids(np.arange(USERS))
    model = explain_graph(folding, users, found)
    rng = np.random.default_rng(1)
    low, high = folding.scale.rating_range
    row, target = np.arange(1, 16), np.arange(40, 50)
    rating = rng.uniform(low, high, 15).astype(np.float32)
    ids, none = folding.ids.values, np.empty(0, np.int64)
    answer = ask(model, item=ids[row - 1], rating=rating, target=ids[target - 1], user=none)
    total = answer["contribution"].sum(1) + answer["base"]
    np.testing.assert_allclose(total + answer["rest"], answer["logit"], atol=2e-6)
    assert abs(answer["rest"]).max() < 1e-4 * max(1, abs(answer["logit"]).max())
    x = fold_in(folding, row, rating)
    logits, scores = scores_of(folding, x)
    np.testing.assert_allclose(answer["logit"], logits[target], atol=2e-3 * max(1, abs(logits).max()))
    np.testing.assert_allclose(answer["score"], scores[target], atol=1e-3 * (high - low))
    np.testing.assert_allclose(answer["base"], scores_of(folding, folding.prior.mean)[0][target], atol=1e-4)
    q = found.item_vectors.double().numpy()
    cosine = q[target] @ q[row].T / np.outer(np.linalg.norm(q[target], axis=1), np.linalg.norm(q[row], axis=1))
    np.testing.assert_allclose(answer["similarity"], cosine, atol=1e-5)
    if not folding.scale.sigmoid and folding.prior.weights is None:
        z = np.column_stack([q, np.ones(len(q))])
        a = z[row].T @ z[row] + 0.45 * np.linalg.inv(folding.prior.root @ folding.prior.root.T)
        apart = rating - (folding.bias + folding.global_bias)[row] - z[row] @ folding.prior.mean
        expected = (z[target] @ np.linalg.inv(a) @ z[row].T) * apart
        np.testing.assert_allclose(answer["contribution"], expected, atol=1e-4)
    known = ask(model, item=ids[row - 1], rating=rating, target=ids[target - 1], user=users.values[4:5])
    trained = found.user_vectors[5].double().numpy() @ q[target].T + float(found.user_bias[5])
    np.testing.assert_allclose(known["logit"], trained + (folding.bias + folding.global_bias)[target], atol=1e-5)
    np.testing.assert_array_equal(known["contribution"], answer["contribution"])
    parts = known["contribution"].sum(1) + known["base"] + known["rest"]
    np.testing.assert_allclose(parts, known["logit"], atol=2e-6 * max(1, abs(known["logit"]).max()))


def test_reasons_of_nothing():
    found = tables()
    folding = new_users(found, item_ids(), SCALES["sigmoid"], estimate_prior(found, "user", SIGMOID))
    model = explain_graph(folding, Ids(np.arange(USERS)), found)
    none, ids = np.empty(0, np.int64), folding.ids.values
    for item, target in ((none, ids[:2]), (none, none), (ids[:3], none), (np.array([-1]), ids[:2])):
        answer = ask(model, item=item, rating=np.full(len(item), 4, np.float32), target=target, user=none)
        assert answer["contribution"].shape == (len(target), len(item))
        if not np.isin(item, ids).any():
            np.testing.assert_allclose(answer["base"], answer["logit"], atol=1e-5)


# Choices --------------------------------------------------------------------------------------------------------------


def choosing(**more):
    found = tables()
    settings = {"weight": 0.1, "l2": 0.02, "exponent": 0.8, "unit": 1.0, "length": None, "user_bias": 0.0}
    return ImplicitFoldIn(item_ids(), found.item_vectors.numpy(), np.zeros(ITEMS + 1, np.float32), **(settings | more))


def test_choices_are_taken_as_implicit_als_does():
    chosen = choosing()
    pairs = torch.ones(1, dtype=torch.int32), torch.ones(1, dtype=torch.int32)
    solver = Ials(*pairs, USERS + 1, ITEMS + 1, weight=0.1, l2=0.02, exponent=0.8)
    row = np.array([3, 17, 44, 60])
    [expected] = solver.fold_in(torch.from_numpy(chosen.vectors), [torch.from_numpy(row)]).numpy()
    answer = fold(
        fold_in_implicit_graph("fold_in_choice", chosen), chosen.ids, chosen.ids.values[row - 1], [np.nan] * 4, k=5
    )
    np.testing.assert_allclose(answer["vector"][:-1], expected, atol=1e-4)
    scores = chosen.vectors[1:] @ expected
    scores[row - 1] = -np.inf
    assert answer["best"].tolist() == chosen.ids.values[np.argsort(-scores)[:5]].tolist()
    one = fold(fold_in_implicit_graph("fold_in_choice", chosen), chosen.ids, chosen.ids.values[row - 1], np.ones(4))
    np.testing.assert_array_equal(one["vector"], answer["vector"])


def test_weights_and_lengths_of_choices():
    chosen = choosing(unit=2.0, length=1.7, user_bias=0.3)
    row, weight = np.array([3, 17, 44]), np.array([1.0, 4.0, 0.5])
    answer = fold(fold_in_implicit_graph("fold_in_choice", chosen), chosen.ids, chosen.ids.values[row - 1], weight)
    q = chosen.vectors.astype(float) / 2
    a = q[row].T @ (q[row] * weight[:, None]) + 0.1 * q.T @ q + 0.02 * (3 + 0.1 * ITEMS) ** 0.8 * np.eye(DIM)
    p = np.linalg.solve(a, q[row].T @ weight)
    np.testing.assert_allclose(answer["vector"], [*(1.7 * p / np.linalg.norm(p)), 0.3], atol=1e-4)
    nothing = fold(fold_in_implicit_graph("fold_in_choice", chosen), chosen.ids, [], [])
    np.testing.assert_allclose(nothing["vector"][:-1], 0, atol=1e-6)


def test_the_objective_that_the_data_decided_counts():
    task = EmbeddingDotTask()
    assert implicit_fold_in_for(task, tables(), item_ids()).length is None  # both, by implicit ALS
    task.metadata = replace(task.metadata, objective="bce")
    assert implicit_fold_in_for(task, tables(), item_ids()).length > 0


def test_who_has_chosen_nothing_that_is_known_is_a_mean_user():
    stranger = np.linspace(-1, 1, DIM, dtype=np.float32)
    chosen = choosing(mean_user=stranger, user_bias=0.3)
    model, best = (
        fold_in_implicit_graph("fold_in_choice", chosen),
        np.argsort(-(chosen.vectors[1:] @ stranger), kind="stable")[:5],
    )
    for items in ([], [-7, -8]):
        answer = fold(model, chosen.ids, items, np.full(len(items), np.nan), k=5)
        np.testing.assert_allclose(answer["vector"], [*stranger, 0.3], atol=1e-6)
        assert answer["best"].tolist() == chosen.ids.values[best].tolist()
    lengthy = fold_in_implicit_graph("fold_in_choice", choosing(mean_user=stranger, length=1.7))
    for disliking in (model, lengthy):
        disliked = fold(disliking, chosen.ids, [chosen.ids.values[2]], [1e-3])["vector"][:-1]
        np.testing.assert_allclose(disliked, stranger, atol=0.01)
    with_one = fold(model, chosen.ids, [-7, chosen.ids.values[2]], [np.nan] * 2)
    alone = fold(
        fold_in_implicit_graph("fold_in_choice", choosing(user_bias=0.3)), chosen.ids, [chosen.ids.values[2]], [np.nan]
    )
    np.testing.assert_allclose(with_one["vector"], alone["vector"], atol=1e-6)


@pytest.mark.parametrize("weights", [[], [np.nan] * 3, [0.25, 0.125, 0.25], [3.0, 0.5, 1e-3]])
@pytest.mark.parametrize("length", [None, 1.7])
def test_reasons_of_choices_add_up(length, weights):
    found, stranger = tables(), np.linspace(-1, 1, DIM, dtype=np.float32)
    chosen = choosing(length=length, mean_user=stranger, user_bias=0.3)
    model = explain_implicit_graph(chosen, Ids(np.arange(USERS)), found)
    ids, none = chosen.ids.values, np.empty(0, np.int64)
    item, target, rating = ids[[2, 16, 43][: len(weights)]], ids[50:60], np.array(weights, np.float32)
    answer = ask(model, item=item, rating=rating, target=target, user=none)
    total = answer["contribution"].sum(1) + answer["base"]
    np.testing.assert_allclose(total, answer["logit"], atol=1e-4)
    folded = fold(fold_in_implicit_graph("fold_in_choice", chosen), chosen.ids, item, weights, score=target)
    np.testing.assert_allclose(answer["logit"], folded["asked"], atol=1e-5)
    missing = max(1 - np.nan_to_num(rating, nan=1).sum(), 0)
    strange = missing * chosen.vectors[51:61] @ stranger + 0.3
    np.testing.assert_allclose(answer["base"], strange, atol=1e-5)


def test_likes_count_for_less_where_choices_make_the_lists():
    users, items = pd.Series(range(30)).repeat(5), pd.Series(range(150)) % 12
    frame = pd.DataFrame({"user": users.to_numpy(), "item": items, "rating": items % 5 + 1}).drop_duplicates()
    likings = {}
    for objective in ("mse", "multitask"):
        data = RatingsDataModule.from_frame(frame, split=SplitOptions(val_fraction=0.2))
        task = EmbeddingDotTask(dim=2, objective=objective)
        trainer = Trainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                          enable_model_summary=False, accelerator="cpu")  # fmt: skip
        trainer.fit(task, data)
        likings[objective] = fold_in_specs(task, bundle_networks(task), task.vocabulary).users.liked_level
    assert likings == {"mse": 0.9, "multitask": 0.75}


# Verification ---------------------------------------------------------------------------------------------------------


def test_other_weights_are_found(tmp_path):
    found = tables()
    prior = estimate_prior(found, "user", SIGMOID, None, bags())
    users, vocabulary = (
        new_users(found, item_ids(), SCALES["sigmoid"], prior),
        Vocabulary(Ids(np.arange(USERS)), item_ids()),
    )
    networks = BundleNetworks(None, None, {})  # not needed
    source = BundleSource(networks, vocabulary, fold_in=FoldInSpecs(users, None, choosing(), found))
    families = {"fold_in": fold_in_module, "fold_in_choice": fold_in_implicit, "explain": explain}
    models = {name: dict(module.build(source))[name] for name, module in families.items()}
    for name, model in models.items():
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, tmp_path / f"{name}.onnx")
    for name, model in models.items():
        families[name].verify(tmp_path, source)
        for tensor in model.graph.initializer:
            if tensor.name == "vectors":
                values = onnx.numpy_helper.to_array(tensor)[::-1].copy()
                tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        onnx.save(model, tmp_path / f"{name}.onnx")
        with pytest.raises(ExportError, match=rf"{name}.onnx"):
            families[name].verify(tmp_path, source)


def test_an_exported_run_has_them(bundle):
    graphs = json.loads((bundle / "manifest.json").read_text())["graphs"]
    assert {"fold_in", "explain"} <= set(graphs)
    assert "fold_in_item" not in graphs
    model = onnx.load(bundle / "fold_in.onnx", load_external_data=False)
    assert [opset.version for opset in model.opset_import] == [18, 4]
    assert model.ir_version <= 10
    assert any(tensor.name == "prior_weights" for tensor in model.graph.initializer)  # the default has an SVD++ term
