"""`fold_in` and `fold_in_item`: the vector of a new user or item from its ratings, and scores by that vector."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from cflightning.data.ids import Ids
from cflightning.models.network import RatingScale
from cflightning_export.fold_in.newton import fold_in
from cflightning_export.fold_in.spec import FoldInSpec
from cflightning_export.graphs.base import BundleSource, GraphFamily, TypedGraph, to_scores
from cflightning_export.graphs.newton_cg import Problem
from cflightning_export.graphs.newton_cg import fold_in as fold_in_nodes
from cflightning_export.onnx_tools.builder import Value
from cflightning_export.onnx_tools.id_table import IdTable
from cflightning_export.onnx_tools.session import GraphSession, ids_of

TOLERANCE = 0.02
"""Error of a score, as a share of the rating range, that verification allows; the usual error is 1e-5.

Contradicting ratings may have several minima, and graph and reference may find different ones."""
VERIFIED_RATINGS = ((20, 0), (20, 10), (1, 0), (1, 1), (0, 0))
"""Ratings of the synthetic users that verification folds in: their number, and how many are NaN, which means liked."""


class RatedSide(NamedTuple):
    """Tables of the rated side.

    Attributes:
        vectors: float [1 + ids, dim].
        bias: float [1, 1 + ids], biases with the global one; None if all are zero.
    """

    vectors: Value
    bias: Value | None

    def logits(self, factors: Value, index: Value | None = None) -> Value:
        """Return logits of a new vector, without its bias: float [s], or [1 + ids].

        Args:
            factors: float [1, dim], factors of the new vector.
            index: int64 [s], ids; None for all ids.
        """
        tables = [table for table in self if table is not None]
        if index is not None:
            tables = [table[:, index] if table is self.bias else table[index] for table in tables]
        return factors.graph.Gemm(factors, *tables, transB=1).flat()


class NewUser(NamedTuple):
    """The vector of a new user.

    Attributes:
        factors: float [1, dim].
        bias: float [1]; None for zero.
        vector: float [dim + 1], both.
    """

    factors: Value
    bias: Value | None
    vector: Value


class WhitenedRatings(NamedTuple):
    """Values that the graph computes from the ratings of a new user or item.

    Attributes:
        indices: int64 [n], indices of the rated ids; 0 for unknown ones.
        known: bool [n], whether the rated ids are known.
        vectors: float [n, dim], vectors of the rated ids.
        whitening: float [dim, dim + 1] and [dim + 1]: vectors become ``vectors @ whitening[0] + whitening[1]``.
        prior_root: float [dim + 1, dim + 1], back from whitened coordinates.
        prior_shift: float [n, dim + 1], by how much each rated id moves the mean of the prior; None if none does.
        problem: the sum to be minimised.
    """

    indices: Value
    known: Value
    vectors: Value
    whitening: tuple[Value, Value]
    prior_root: Value
    prior_shift: Value | None
    problem: Problem


def fold_in_graph(spec: FoldInSpec) -> onnx.ModelProto:
    """Build the graph `fold_in` of a network that predicts ratings."""
    g = TypedGraph("fold_in", items=spec.ids, dim=spec.vectors.shape[1])
    tables = rated_side(g, spec)
    ratings = whiten_ratings(g, spec, tables, g.items, g["item"])
    vector = g.Gemm(fold_in_nodes(ratings.problem), ratings.prior_root, transB=1)
    flat = vector.flat()
    user = NewUser(vector[:, : g.dim], flat[g.dim :], flat)
    return finish_recommendation(g, tables, ratings.indices, ratings.known, user, spec.scale)


def fold_in_item_graph(spec: FoldInSpec) -> onnx.ModelProto:
    """Build the graph `fold_in_item`."""
    dim = spec.vectors.shape[1]
    g = TypedGraph("fold_in_item", users=spec.ids, dim=dim)
    tables = rated_side(g, spec)
    ratings = whiten_ratings(g, spec, tables, g.users, g["user"])
    vector = g.Gemm(fold_in_nodes(ratings.problem), ratings.prior_root, transB=1)
    flat = vector.flat()
    logits = tables.logits(vector[:, :dim], g.users.index(g["score_user"])) + flat[dim:]
    return g.finish(vector=flat, asked=to_scores(spec.scale, logits), known=ratings.known)


def rated_side(g: TypedGraph, spec: FoldInSpec) -> RatedSide:
    """Return the tables of the rated side; the sum of biases is computed when the graph is loaded."""
    vectors, bias = g.constant("vectors", spec.vectors), g.constant("bias", spec.bias)
    return RatedSide(vectors, bias.row() + g.constant("global_bias", spec.global_bias))


def whiten_ratings(
    g: TypedGraph, spec: FoldInSpec, tables: RatedSide, ids: IdTable, rated: Value, *, shifts: bool = False
) -> WhitenedRatings:
    """State the fold-in of the ratings in whitened coordinates.

    Args:
        g: a graph with the input `rating`, float [n]; NaN stands for liked.
        spec: the rated side and the prior.
        tables: tables of the rated side.
        ids: ids of the rated side.
        rated: the rated ids [n].
        shifts: whether the shift of the prior by each rated id is wanted as well.
    """
    dim = spec.vectors.shape[1]
    index = ids.index(rated)
    known = index > 0
    counts = known.cast(TensorProto.FLOAT)
    vectors = tables.vectors[index]
    root = g.constant("prior_root", spec.whitening)
    whitening = root[0:dim], root[dim]  # computed when the graph is loaded: the root is stored once
    z = g.Gemm(vectors, *whitening) * counts.column()
    start, prior_shift = g.constant("start", spec.start), None
    if spec.prior.weights is not None:
        weights = g.constant("prior_weights", spec.prior.weights.vectors)[index]
        directions = g.constant("directions", spec.directions)
        share = counts * (g.ReduceSum(counts, [0], keepdims=1) + 1.0) ** -0.5
        start = g.Gemm(g.Gemm(share.row(), weights), directions, start)
        if shifts:
            prior_shift = g.Gemm(weights, directions) * share.column()
    rating = g.Where(g.IsNaN(g["rating"]), float(spec.liked_rating), g["rating"])
    target = rating.row()
    if spec.scale.sigmoid:
        target = (target - float(spec.scale.low)) / float(spec.link_width)
    assert tables.bias is not None
    start_logit = g.Gemm(start, z, tables.bias[:, index], transB=1)
    problem = Problem(z, start_logit, target, start, spec.scale.sigmoid)
    return WhitenedRatings(index, known, vectors, whitening, root, prior_shift, problem)


def new_user(factors: Value, bias: float) -> NewUser:
    """Return a user of factors, float [1, dim], and a constant bias."""
    g, last = factors.graph, factors.graph.constant("user_bias", [bias])
    return NewUser(factors, last if bias else None, g.Concat(factors.flat(), last, axis=0))


def finish_recommendation(
    g: TypedGraph, tables: RatedSide, rated: Value, known: Value, user: NewUser, scale: RatingScale | None
) -> onnx.ModelProto:
    """Finish `fold_in` or `fold_in_choice`: recommend by a user vector, and score the requested items.

    Args:
        g: the graph.
        tables: tables of the items.
        rated: int64 [n], indices of the rated items, which are not recommended.
        known: bool [n], whether the rated items are known.
        user: vector of the user.
        scale: from logits to scores; None where scores are logits.
    """
    logits = tables.logits(user.factors)
    # Index 0, the unknown item, is excluded as well.
    excluded = g.Concat([0], rated, g.items.index(g["exclude_item"]), axis=0)
    masked = g.ScatterElements(logits, excluded, g.Expand(-np.inf, excluded.shape()))
    count = g.Min(g["k"], [len(g.items.ids)])
    best, index = g.top_k(masked, count)
    requested = tables.logits(user.factors, g.items.index(g["score_item"]))
    if user.bias is not None or scale is not None:
        # Best and requested items are scored together: a node costs more than some numbers more.
        scores = g.Concat(best, requested, axis=0)
        if user.bias is not None:
            scores = scores + user.bias
        if scale is not None:
            scores = to_scores(scale, scores)
        best, requested = scores[:count], scores[count:]
    return g.finish(best=g.items.id(index - 1), score=best, vector=user.vector, asked=requested, known=known)


def build(source: BundleSource) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Yield `fold_in` where ratings are predicted, and `fold_in_item` where it was requested."""
    if source.fold_in is not None and source.fold_in.users is not None:
        yield "fold_in", fold_in_graph(source.fold_in.users)
    if source.fold_in is not None and source.fold_in.items is not None:
        yield "fold_in_item", fold_in_item_graph(source.fold_in.items)


def draw_indices(rng: np.random.Generator, ids: Ids, count: int) -> NDArray[np.int64]:
    """Draw indices of rated ids, int64 [count], to be verified; every seventh, from the second on, is unknown."""
    index = rng.integers(1, len(ids) + 1, count)
    index[1::7] = 0
    return index


def verify(folder: Path, source: BundleSource) -> None:
    """Fold in synthetic users and items, with unknown ids, and compare scores with the exact solution."""
    if source.fold_in is None:
        return
    rng = np.random.default_rng(0)
    for name, side, spec in (("fold_in", "item", source.fold_in.users), ("fold_in_item", "user", source.fold_in.items)):
        if spec is None:
            continue
        graph, (low, high) = GraphSession(folder, name), spec.scale.rating_range or (0.0, 1.0)
        for count, liked in VERIFIED_RATINGS:
            case, index = f"{count} ratings, {liked} of them liked", draw_indices(rng, spec.ids, count)
            rating = rng.uniform(low, high, count).astype(np.float32)
            rating[:liked] = np.nan
            inputs = {side: ids_of(spec.ids, index), "rating": rating}
            if name == "fold_in":
                inputs |= {"k": np.array([1]), "exclude_item": spec.ids.values[:0]}
            every = ids_of(spec.ids, np.arange(len(spec.ids) + 1))
            answer = graph.run(case, **inputs, **{f"score_{side}": every})
            vector = fold_in(spec, index[index > 0], rating[index > 0])
            graph.check_close(case, answer["asked"], spec.scores(vector), TOLERANCE * (high - low))


GRAPHS = GraphFamily(build, verify)
