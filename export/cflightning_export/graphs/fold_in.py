"""The graphs of new users and new items: a row from its ratings, and what comes of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto

from cflightning.data.ids import Ids
from cflightning.models.network import RatingScale
from cflightning_export.fold_in.spec import Folding
from cflightning_export.graphs.newton_cg import INNER, newton
from cflightning_export.onnx_tools.builder import END, Nodes, Value, element


class Given(NamedTuple):
    """Names of values.

    Attributes:
        row: int64 [n], rows of the rated ids; 0 for unknown ones.
        vectors: float [n, dim], theirs.
        z: float [n, dim + 1], whitened; zeros for unknown ones.
        start: float [1, dim + 1], the prior's mean, whitened.
        leaning: float [n, dim + 1], by how much each has moved the start; "" where nothing does, or nobody asked.
        bias: float [1, n], logits without the new row.
        target: float [1, n], on the link's scale.
    """

    row: str
    vectors: str
    z: str
    start: str
    leaning: str
    bias: str
    target: str


def fold_in_graph(folding: Folding) -> onnx.ModelProto:
    """A new user's rated items -> the best others, and scores of those that were asked for."""
    g = Nodes()
    given = read_given(g, folding, "item")
    link = folding.scale.sigmoid
    found = newton(g, given.z, given.bias, given.target, given.start, sigmoid=link, inner=INNER[link])
    vector = g("Gemm", found.row, "colour", transB=1)
    dim = folding.vectors.shape[1]
    rank_and_ask(g, folding.ids, folding.scale, given.row, vector, dim)
    return fold_in_model(g, "fold_in", folding.ids, dim)


def fold_in_item_graph(folding: Folding) -> onnx.ModelProto:
    """A new item's users and their ratings -> its row, and scores of the users that were asked for."""
    g = Nodes()
    given = read_given(g, folding, "user")
    link = folding.scale.sigmoid
    found = newton(g, given.z, given.bias, given.target, given.start, sigmoid=link, inner=INNER[link])
    vector = g("Gemm", found.row, "colour", transB=1)
    factors, bias = split(g, vector, folding.vectors.shape[1])
    logits = ask(g, g.rows(folding.ids, "score_user"), factors)
    g("Identity", g.scaled(folding.scale, g("Add", logits, bias)), to="asked")
    inputs: list[Value] = [
        ("user", element(folding.ids), ["n"]),
        ("rating", TensorProto.FLOAT, ["n"]),
        ("score_user", element(folding.ids), ["s"]),
    ]
    outputs: list[Value] = [
        ("vector", TensorProto.FLOAT, [folding.vectors.shape[1] + 1]),
        ("asked", TensorProto.FLOAT, ["s"]),
        ("known", TensorProto.BOOL, ["n"]),
    ]
    return g.model("fold_in_item", inputs, outputs)


def read_given(g: Nodes, folding: Folding, side: str, *, leaning: bool = False) -> Given:
    """From raw ids and ratings (NaN for liked) to what a row is solved from; adds the output `known`."""
    dim = folding.vectors.shape[1]
    row, known = read_rows(g, folding.ids, side)
    vectors = g("Gather", g.constant("vectors", folding.vectors), row)
    # Computed when the graph is loaded, as is the bias: what they are made of is stored once.
    whole = g.constant("colour", folding.whiten)
    g.slice(whole, g.integers(0), g.integers(dim), to="whiten")
    g("Gather", whole, g.integer(dim), to="whiten_bias")
    z = g("Gemm", vectors, "whiten", "whiten_bias")
    z = g("Mul", z, g("Unsqueeze", known, g.integers(1)))
    start, each = g.constant("start", folding.start), ""
    if folding.prior.leaning is not None:
        apart = g("Gather", g.constant("leaning", folding.prior.leaning.vectors), row)
        count = g("Add", g("ReduceSum", known, g.integers(0), keepdims=1), g.constant("one", 1.0))
        share = g("Mul", known, g("Pow", count, g.constant("minus_half", -0.5)))
        directions = g.constant("directions", folding.directions)
        moved = g("Gemm", g("Unsqueeze", share, g.integers(0)), apart)
        start = g("Gemm", moved, directions, start)
        if leaning:
            each = g("Mul", g("Gemm", apart, directions), g("Unsqueeze", share, g.integers(1)))
    row_bias = g("Unsqueeze", g.constant("row_bias", folding.bias), g.integers(0))
    g("Add", row_bias, g.constant("global_bias", folding.global_bias), to="bias")
    bias = g("Gather", "bias", row, axis=1)
    liked = g("Where", g("IsNaN", "rating"), g.constant("liked", folding.liked), "rating")
    target = g("Unsqueeze", liked, g.integers(0))
    if folding.scale.sigmoid:
        target = g("Div", g("Sub", target, g.constant("low", folding.scale.low)), g.constant("width", folding.unit))
    return Given(row, vectors, z, start, each, bias, target)


def read_rows(g: Nodes, ids: Ids, source: str) -> tuple[str, str]:
    """Rows of raw ids, int64 [n], and 1 for known ones and 0 for others, float [n]; adds the output `known`."""
    row = g.rows(ids, source)
    return row, g.cast(g.known(row), TensorProto.FLOAT)


def split(g: Nodes, vector: str, dim: int) -> tuple[str, str]:
    """The row's factors, float [1, dim], and its bias, float [1]; adds the output `vector`."""
    g("Reshape", vector, g.integers(-1), to="vector")
    end = g.integers(dim)
    return g.slice(vector, g.integers(0), end, axis=1), g.slice("vector", end, g.integers(END))


def ask(g: Nodes, row: str, factors: str) -> str:
    """Logits of rows, without the new row's bias: int64 [s] -> float [s]."""
    table, bias = (g("Gather", name, row, axis=axis) for name, axis in (("vectors", 0), ("bias", 1)))
    return g("Reshape", g("Gemm", factors, table, bias, transB=1), g.integers(-1))


def rank_and_ask(g: Nodes, ids: Ids, scale: RatingScale | None, given: str, vector: str, dim: int) -> None:
    """Adds the outputs `vector`, `best`, `score` and `asked`.

    Args:
        g: a graph with the constants `vectors` and `bias`.
        ids: of the items.
        scale: from logits to scores; None where they are the same.
        given: int64 [n], rows that are left out.
        vector: float [1, dim + 1].
        dim: of the factors.
    """
    factors, bias = split(g, vector, dim)
    logits = g("Reshape", g("Gemm", factors, "vectors", "bias", transB=1), g.integers(-1))
    # Row 0, the unknown, is left out as well.
    left_out = g("Concat", g.integers(0), given, g.rows(ids, "exclude_item"), axis=0)
    nothing = g("Expand", g.constant("nothing", -np.inf), g("Shape", left_out))
    masked = g("ScatterElements", logits, left_out, nothing)
    count = g("Min", "k", g.integers(len(ids)))
    top = g("TopK", masked, count)
    g.raw(ids, g("Sub", f"{top}_index", g.integer(1)), to="best")
    # Both in one go: a node costs more than a few numbers more.
    both = g("Add", g("Concat", top, ask(g, g.rows(ids, "score_item"), factors), axis=0), bias)
    scores = both if scale is None else g.scaled(scale, both)
    g.slice(scores, g.integers(0), count, to="score")
    g.slice(scores, count, g.integers(END), to="asked")


def fold_in_model(g: Nodes, name: str, ids: Ids, dim: int) -> onnx.ModelProto:
    """The finished graph, with the signature of `serve/BUNDLE.md`."""
    kind = element(ids)
    inputs: list[Value] = [
        ("item", kind, ["n"]),
        ("rating", TensorProto.FLOAT, ["n"]),
        ("k", TensorProto.INT64, [1]),
        ("exclude_item", kind, ["m"]),
        ("score_item", kind, ["s"]),
    ]
    outputs: list[Value] = [
        ("best", kind, ["count"]),
        ("score", TensorProto.FLOAT, ["count"]),
        ("vector", TensorProto.FLOAT, [dim + 1]),
        ("asked", TensorProto.FLOAT, ["s"]),
        ("known", TensorProto.BOOL, ["n"]),
    ]
    return g.model(name, inputs, outputs)
