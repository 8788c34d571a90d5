"""`fold_in` or `fold_in_choice`: the vector of a new user from implicit feedback, and scores by that vector.

In the eigenvectors of Q'Q, which are the same for every user, the last two terms of the sum (`fold_in.implicit`) are a
diagonal; columns are divided by its root.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto

from cflightning_export.fold_in.autoencoder import AutoencoderFoldIn
from cflightning_export.fold_in.implicit import ImplicitFoldIn
from cflightning_export.graphs.base import BundleSource, GraphFamily, TypedGraph
from cflightning_export.graphs.fold_in import RatedSide, draw_indices, finish_recommendation, new_user
from cflightning_export.graphs.newton_cg import TINY, conjugate_gradients
from cflightning_export.onnx_tools.builder import Value
from cflightning_export.onnx_tools.session import GraphSession, ids_of

STEPS = 24
"""Steps of conjugate gradients."""
TOLERANCE = 1e-3
"""Error of a score, as a share of the largest score, that verification allows."""
VERIFIED_WEIGHTS = {
    "20 items": [np.nan] * 20,
    "1 item": [np.nan],
    "no item": [],
    "20 items, 15 of them weighted": [0.2, 0.5, 2.0, np.nan] * 5,
    "1 item of weight 0.5": [0.5],
}
"""Weights of the items of the synthetic users that verification folds in; NaN stands for 1."""


class ImplicitRatings(NamedTuple):
    """Values that the graph computes from the items of a new user.

    Attributes:
        indices: int64 [n], indices of the items; 0 for unknown ones.
        known: bool [n], whether the items are known.
        vectors: float [n, dim], their vectors.
        axes: float [dim, dim], eigenvectors of Q'Q, divided by the unit of vectors.
        column_scale: float [1, dim], by which columns are multiplied.
        z: float [n, dim], vectors in these axes, scaled; zeros for unknown items.
        weighted: float [n, dim], the same times the root of each item's weight.
        weight: float [1, n], weight of each item.
        factors: float [1, dim], the factors of the user.
        stretch: float [1, 1], factor by which the solution was stretched to its length; None if it was not.
        mean_part: float [1, dim], the part of the mean user in the factors; None if there is none.
    """

    indices: Value
    known: Value
    vectors: Value
    axes: Value
    column_scale: Value
    z: Value
    weighted: Value
    weight: Value
    factors: Value
    stretch: Value | None
    mean_part: Value | None


def fold_in_implicit_graph(name: str, spec: ImplicitFoldIn) -> onnx.ModelProto:
    """Build the graph `fold_in` or `fold_in_choice` of a network of implicit feedback."""
    g = TypedGraph(name, items=spec.ids, dim=spec.vectors.shape[1])
    tables = item_tables(g, spec)
    solved = solve_implicit(g, spec, tables)
    user = new_user(solved.factors, spec.user_bias)
    return finish_recommendation(g, tables, solved.indices, solved.known, user, None)


def item_tables(g: TypedGraph, spec: ImplicitFoldIn | AutoencoderFoldIn) -> RatedSide:
    """Return the tables of the items."""
    bias = g.constant("bias", spec.bias[None]) if spec.bias.any() else None
    return RatedSide(g.constant("vectors", spec.vectors), bias)


def item_weights(g: TypedGraph) -> Value:
    """Return the weights of the input `rating`, float [n], in which NaN stands for 1."""
    return g.Where(g.IsNaN(g["rating"]), 1.0, g["rating"])


def solve_implicit(g: TypedGraph, spec: ImplicitFoldIn, tables: RatedSide) -> ImplicitRatings:
    """Solve for the factors of the user of the inputs `item` and `rating`: weights, float [n]; NaN stands for 1."""
    index = g.items.index(g["item"])
    known = index > 0
    counts = known.cast(TensorProto.FLOAT)
    vectors = tables.vectors[index]
    eigenvalues, axes = spec.axes()
    pairs = g.ReduceSum(counts, [0], keepdims=1) + float(spec.weight * len(spec.ids))
    ridge = pairs ** float(spec.exponent) * float(spec.l2)
    column_scale = g.Reciprocal(g.Sqrt(g.constant("eigenvalues", eigenvalues[None]) + ridge))
    axes_in = g.constant("axes", axes / spec.unit)
    z = g.Gemm(vectors, axes_in) * column_scale * counts.column()
    weight = item_weights(g).row()
    weighted = z * g.Sqrt(weight).T
    solution = conjugate_gradients(weighted, g.Gemm(weight, z), STEPS)
    factors = g.Gemm(solution * column_scale, axes_in, transB=1)
    stretch = mean_part = None
    own_part = g.Min(g.Gemm(weight, counts.column()), 1.0)
    if spec.length is not None:
        squared = g.Gemm(factors, factors, TINY, transB=1)
        stretch = own_part * float(spec.length) / g.Sqrt(squared)
        factors = factors * stretch
    if spec.mean_user is not None:
        mean_part = (1.0 - own_part) * g.constant("mean_user", spec.mean_user[None])
        factors = factors + mean_part
    return ImplicitRatings(
        index, known, vectors, axes_in, column_scale, z, weighted, weight, factors, stretch, mean_part
    )


def build(source: BundleSource) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Yield `fold_in_choice`, which is `fold_in` where no ratings are predicted."""
    spec = source.fold_in and source.fold_in.implicit_users
    if isinstance(spec, ImplicitFoldIn):
        name = graph_name(source)
        yield name, fold_in_implicit_graph(name, spec)


def verify(folder: Path, source: BundleSource) -> None:
    """Fold in synthetic users, unknown ids among their items, and compare scores with the exact solution."""
    spec = source.fold_in and source.fold_in.implicit_users
    if isinstance(spec, ImplicitFoldIn):
        verify_user_vectors(folder, graph_name(source), spec, VERIFIED_WEIGHTS, TOLERANCE)


def verify_user_vectors(
    folder: Path,
    name: str,
    spec: ImplicitFoldIn | AutoencoderFoldIn,
    cases: Mapping[str, Sequence[float]],
    tolerance: float,
) -> None:
    """Fold in synthetic users by a graph, and compare scores with those by their exact vectors.

    Args:
        folder: folder of the graph.
        name: name of the graph.
        spec: fold-in of new users.
        cases: name of each user -> weights of the items, some of which are unknown.
        tolerance: error of a score, as a share of the largest score.

    Raises:
        ExportError: scores differ.
    """
    rng, graph = np.random.default_rng(0), GraphSession(folder, name)
    every = ids_of(spec.ids, np.arange(len(spec.ids) + 1))
    for case, weights in cases.items():
        index, weight = draw_indices(rng, spec.ids, len(weights)), np.array(weights, np.float32)
        answer = graph.run(
            case,
            item=ids_of(spec.ids, index),
            rating=weight,
            k=np.array([1]),
            exclude_item=spec.ids.values[:0],
            score_item=every,
        )
        known = index > 0
        scores = spec.scores(spec.user_vector(index[known], weight[known]))
        graph.check_close(case, answer["asked"], scores, tolerance * max(float(abs(scores).max()), 1e-30))


def graph_name(source: BundleSource) -> str:
    """Return the name of the graph that folds in new users from implicit feedback."""
    return "fold_in" if source.fold_in is not None and source.fold_in.users is None else "fold_in_choice"


GRAPHS = GraphFamily(build, verify)
