"""`explain`: how much each rated item adds to the logit of a target item, exactly.

A folded-in vector is a sum over its ratings, ``y = start + A^-1 sum_j v_j z_j`` (the hat matrix of the last Newton
step), so

    logit_t = base_t + sum_j <z_t, A^-1 z_j> v_j + rest_t

In a linear autoencoder <z_t, e_j> takes the place of <z_t, A^-1 z_j>, with row j of the encoder, and v_j is a weight.
The base is the logit of a new user without ratings; for implicit feedback the vector of that user is multiplied by 1
minus the sum of the weights, or by 0 if the sum is above 1.
The rest is rounding; for a known user it is also the difference between the trained and the folded-in vector.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx

from cflightning.data.ids import Ids
from cflightning.models.network import DotProductTables, RatingScale
from cflightning_export.fold_in.autoencoder import AutoencoderFoldIn
from cflightning_export.fold_in.implicit import ImplicitFoldIn
from cflightning_export.fold_in.newton import fold_in
from cflightning_export.fold_in.spec import FoldInSpec
from cflightning_export.graphs.base import BundleSource, GraphFamily, TypedGraph, to_scores
from cflightning_export.graphs.fold_in import (
    TOLERANCE,
    RatedSide,
    draw_indices,
    new_user,
    rated_side,
    whiten_ratings,
)
from cflightning_export.graphs.fold_in_autoencoder import TOLERANCE as AUTOENCODER_TOLERANCE
from cflightning_export.graphs.fold_in_autoencoder import encode_items
from cflightning_export.graphs.fold_in_implicit import TOLERANCE as IMPLICIT_TOLERANCE
from cflightning_export.graphs.fold_in_implicit import item_tables, solve_implicit
from cflightning_export.graphs.newton_cg import TINY, conjugate_gradients, fold_in_with_curvature
from cflightning_export.onnx_tools.builder import Value
from cflightning_export.onnx_tools.session import GraphSession, ids_of

STEPS = 24
"""Steps of conjugate gradients for each target."""
VERIFIED_ITEMS = 20
"""Rated items, and targets, of the synthetic user that verification explains."""


class _Targets(NamedTuple):
    """The target items: vectors, float [t, dim], and biases with the global one, float [t]."""

    vectors: Value
    bias: Value


class _Explanation(NamedTuple):
    """Intermediate values of an explanation, from ratings or from implicit feedback.

    Attributes:
        rated: float [n, dim], vectors of the rated items.
        known: bool [n], whether they are known.
        contribution: float [t, n].
        base: float [t].
        vector: float [1, dim + 1], the folded-in user.
        scale: from logits to scores; None where scores are logits.
    """

    rated: Value
    known: Value
    contribution: Value
    base: Value
    vector: Value
    scale: RatingScale | None


def explain_graph(spec: FoldInSpec, users: Ids, tables: DotProductTables) -> onnx.ModelProto:
    """Build `explain` of a network that predicts ratings.

    Args:
        spec: fold-in of new users.
        users: known users.
        tables: tables of the network that recommends.
    """
    g = TypedGraph("explain", users=users, items=spec.ids, dim=spec.vectors.shape[1])
    items = rated_side(g, spec)
    ratings = whiten_ratings(g, spec, items, g.items, g["item"], shifts=True)
    y, curvature = fold_in_with_curvature(ratings.problem)
    targets = _targets(g, items)
    z = g.Gemm(targets.vectors, *ratings.whitening)
    hat = g.Gemm(conjugate_gradients(curvature.scaled, z, STEPS, many=True), ratings.problem.z, transB=1)
    contribution = hat * curvature.weight
    if ratings.prior_shift is not None:
        contribution = contribution + g.Gemm(z, ratings.prior_shift, transB=1)
    base = targets.bias + g.Gemm(z, g.constant("start", spec.start), transB=1).flat()
    vector = g.Gemm(y, ratings.prior_root, transB=1)
    return _finish(
        g, tables, targets, _Explanation(ratings.vectors, ratings.known, contribution, base, vector, spec.scale)
    )


def explain_implicit_graph(spec: ImplicitFoldIn, users: Ids, tables: DotProductTables) -> onnx.ModelProto:
    """Build `explain` of a network of implicit feedback; arguments as for `explain_graph`."""
    g = TypedGraph("explain", users=users, items=spec.ids, dim=spec.vectors.shape[1])
    items = item_tables(g, spec)
    solved = solve_implicit(g, spec, items)
    targets = _targets(g, items)
    z = g.Gemm(targets.vectors, solved.axes) * solved.column_scale
    hat = g.Gemm(conjugate_gradients(solved.weighted, z, STEPS, many=True), solved.z, transB=1)
    contribution = hat * solved.weight
    if solved.stretch is not None:
        contribution = contribution * solved.stretch
    base = targets.bias + float(spec.user_bias)
    if solved.mean_part is not None:
        base = base + g.Gemm(targets.vectors, solved.mean_part, transB=1).flat()
    vector = new_user(solved.factors, spec.user_bias).vector.row()
    return _finish(g, tables, targets, _Explanation(solved.vectors, solved.known, contribution, base, vector, None))


def explain_autoencoder_graph(spec: AutoencoderFoldIn, users: Ids, tables: DotProductTables) -> onnx.ModelProto:
    """Build `explain` of a linear autoencoder; arguments as for `explain_graph`.

    The contribution of item i to target t is its weight times the dot product of row i of the encoder and vector t.
    """
    g = TypedGraph("explain", users=users, items=spec.ids, dim=spec.vectors.shape[1])
    items, rated = item_tables(g, spec), encode_items(g, spec)
    targets = _targets(g, items)
    contribution = g.Gemm(targets.vectors, rated.encoded, transB=1) * rated.weight
    base = targets.bias + g.MatMul(targets.vectors, rated.mean_part) + float(spec.user_bias)
    vector = new_user(rated.sum(), spec.user_bias).vector.row()
    return _finish(
        g, tables, targets, _Explanation(items.vectors[rated.indices], rated.known, contribution, base, vector, None)
    )


def _targets(g: TypedGraph, items: RatedSide) -> _Targets:
    index = g.items.index(g["target"])
    return _Targets(
        items.vectors[index], g.Expand(0.0, index.shape()) if items.bias is None else items.bias[:, index].flat()
    )


def _finish(g: TypedGraph, tables: DotProductTables, targets: _Targets, explained: _Explanation) -> onnx.ModelProto:
    """Compute the outputs for the folded-in user, or for the trained one if a user is named."""
    user = g.users.index(g["user"])
    factors = g.constant("user_vectors", tables.user_vectors.numpy())[user]
    bias = g.constant("user_biases", tables.user_bias.numpy()[:, None])[user]
    candidates = g.Concat(explained.vector, g.Concat(factors, bias, axis=1), axis=0)
    vector = candidates[g.literal([-1])]  # the last one: that of the named user, if there is one
    ones = g.Expand(g.constant("ones", [[1.0]]), g.Concat(targets.bias.shape(), [1], axis=0))
    logit = g.Gemm(vector, g.Concat(targets.vectors, ones, axis=1), transB=1).flat() + targets.bias
    total = explained.base + g.ReduceSum(explained.contribution, [1], keepdims=0)
    products = g.Gemm(targets.vectors, explained.rated, transB=1)
    lengths = [g.ReduceL2(vectors, [1], keepdims=1) for vectors in (targets.vectors, explained.rated)]
    cosine = products / g.Gemm(*lengths, TINY, transB=1)
    return g.finish(
        contribution=explained.contribution,
        base=explained.base,
        rest=logit - total,
        logit=logit,
        score=logit if explained.scale is None else to_scores(explained.scale, logit),
        similarity=g.Clip(cosine, -1.0, 1.0),
        known=explained.known,
    )


def build(source: BundleSource) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Yield `explain`, in the unit of the recommendations."""
    if source.fold_in is not None:
        users, tables = source.vocabulary.users, source.fold_in.tables
        implicit = source.fold_in.implicit_users
        if isinstance(implicit, AutoencoderFoldIn):
            yield "explain", explain_autoencoder_graph(implicit, users, tables)
        elif implicit is not None:
            yield "explain", explain_implicit_graph(implicit, users, tables)
        elif source.fold_in.users is not None:
            yield "explain", explain_graph(source.fold_in.users, users, tables)


def verify(folder: Path, source: BundleSource) -> None:
    """Compare the scores of a synthetic user and of a known one with the exact solution and with the trained vector."""
    if source.fold_in is None:
        return
    specs, users, rng = source.fold_in, source.vocabulary.users, np.random.default_rng(0)
    spec = specs.implicit_users or specs.users
    assert spec is not None
    index, target = draw_indices(rng, spec.ids, VERIFIED_ITEMS), draw_indices(rng, spec.ids, VERIFIED_ITEMS)
    known = index > 0
    if not isinstance(spec, FoldInSpec):
        rating = rng.uniform(0.2, 2.0, VERIFIED_ITEMS).astype(np.float32)
        rating[::3] = np.nan
        vector = spec.user_vector(index[known], rating[known])
        tolerance = AUTOENCODER_TOLERANCE if isinstance(spec, AutoencoderFoldIn) else IMPLICIT_TOLERANCE
        tolerance *= max(float(abs(spec.scores(vector)).max()), 1e-30)
    else:
        low, high = spec.scale.rating_range or (0.0, 1.0)
        rating = rng.uniform(low, high, VERIFIED_ITEMS).astype(np.float32)
        rating[::3] = np.nan
        vector, tolerance = fold_in(spec, index[known], rating[known]), TOLERANCE * (high - low)
    graph, last = GraphSession(folder, "explain"), np.array([users.num_embeddings - 1])
    trained = np.append(specs.tables.user_vectors.numpy()[last[0]], specs.tables.user_bias.numpy()[last[0]])
    for case, user, expected in (("folded-in user", last[:0], vector), ("last user", last, trained)):
        answer = graph.run(
            case,
            item=ids_of(spec.ids, index),
            rating=rating,
            target=ids_of(spec.ids, target),
            user=ids_of(users, user),
        )
        graph.check_close(case, answer["score"], spec.scores(expected)[target], tolerance)
        if isinstance(spec, AutoencoderFoldIn):
            weight = np.where(known, spec.weights(rating), 0.0)
            contribution = spec.vectors[target].astype(np.float64) @ spec.encoder[index].T * weight
            graph.check_close(f"{case} (contributions)", answer["contribution"], contribution, tolerance)
        total = answer["contribution"].sum(1) + answer["base"] + answer["rest"]
        graph.check_close(f"{case} (sum)", total, answer["logit"], 1e-4 * max(1.0, float(abs(answer["logit"]).max())))


GRAPHS = GraphFamily(build, verify)
