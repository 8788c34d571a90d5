"""`seen` and `history`: users to the items of all their rows, and to the training rows with their ratings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from cflightning.data.vocabulary import Vocabulary
from cflightning_export.contents.seen_items import SeenRows
from cflightning_export.graphs.base import BundleSource, GraphFamily, TypedGraph
from cflightning_export.onnx_tools.builder import Value
from cflightning_export.onnx_tools.session import GraphSession, ids_of


def seen_graph(rows: SeenRows, vocabulary: Vocabulary) -> onnx.ModelProto:
    """Build the graph `seen`."""
    g = TypedGraph("seen", users=vocabulary.users, items=vocabulary.items)
    user = g.users.index(g["user"])
    begins = _begins(g, rows, vocabulary)
    begin, end = begins[user], begins[user + 1]
    _, outputs = _gather_items(g, rows, vocabulary, begin, end)
    return g.finish(**outputs)


def history_graph(rows: SeenRows, vocabulary: Vocabulary) -> onnx.ModelProto:
    """Build the graph `history`: the training rows are the first rows of each user."""
    g = TypedGraph("history", users=vocabulary.users, items=vocabulary.items)
    user = g.users.index(g["user"])
    begins = np.searchsorted(rows.user, np.arange(vocabulary.users.num_embeddings))
    ends = begins + np.bincount(rows.user[rows.trained], minlength=len(begins))
    begin, end = _begins(g, rows, vocabulary)[user], g.constant("ends", ends, _row_dtype(rows))[user]
    row, outputs = _gather_items(g, rows, vocabulary, begin, end)
    distinct, codes = np.unique(rows.rating, return_inverse=True)
    if len(distinct) <= 2**8:
        rating = g.constant("ratings", distinct)[g.constant("codes", codes, np.uint8)[row].cast(TensorProto.INT64)]
    else:
        rating = g.constant("ratings", rows.rating)[row]
    return g.finish(**outputs, rating=rating)


def _gather_items(
    g: TypedGraph, rows: SeenRows, vocabulary: Vocabulary, begin: Value, end: Value
) -> tuple[Value, dict[str, Value]]:
    """Gather the rows of several users from a matrix of compressed sparse rows.

    Args:
        g: the graph.
        rows: rows of all users.
        vocabulary: their ids.
        begin: int32 or int64 [n], the first row of each requested user.
        end: int32 or int64 [n], the end of the rows of each.

    Returns:
        Numbers of the rows, int64 [m], and the outputs `item`, `place` and `position`.
    """
    begin, end = begin.cast(TensorProto.INT64), end.cast(TensorProto.INT64)
    count = end - begin
    until, total = g.CumSum(count, 0), g.ReduceSum(count, keepdims=0)
    nth = g.Range(0, total, 1)
    # A one where the rows of each user end: their running sum is the position of the user. The last users may end
    # behind the last row, so there is one entry more than rows.
    zeros, ones = g.Expand(0, (total + 1).row()), g.Expand(1, g["user"].shape())
    ends = g.ScatterND(zeros, until.column(), ones, reduction="add")
    position = g.CumSum(ends, 0)[nth]
    row = nth + (end - until)[position]
    items = g.constant("items", rows.item - 1, np.uint16 if len(vocabulary.items) <= 2**16 else np.int32)
    place = items[row].cast(TensorProto.INT64)
    return row, {"item": g.items.id(place), "place": place, "position": position}


def _begins(g: TypedGraph, rows: SeenRows, vocabulary: Vocabulary) -> Value:
    """Return the first row of each user, and last the number of rows."""
    begins = np.searchsorted(rows.user, np.arange(vocabulary.users.num_embeddings + 1))
    return g.constant("begins", begins, _row_dtype(rows))


def _row_dtype(rows: SeenRows) -> type[np.signedinteger]:
    return np.int32 if len(rows.user) < 2**31 else np.int64


def build(source: BundleSource) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Yield `seen` and, with ratings, `history`."""
    if source.seen is not None:
        yield "seen", seen_graph(source.seen, source.vocabulary)
        if source.with_ratings:
            yield "history", history_graph(source.seen, source.vocabulary)


def verify(folder: Path, source: BundleSource) -> None:
    """Compare the rows of many, last, unknown and no users with those of the table."""
    rows, vocabulary = source.seen, source.vocabulary
    if rows is None:
        return
    users = vocabulary.users.num_embeddings
    cases = {
        "many": np.random.default_rng(1).integers(0, users, 20),
        "last": np.array([users - 1]),
        "unknown": np.array([0]),
        "zero": np.array([], np.int64),
    }
    for name in ("seen", "history") if source.with_ratings else ("seen",):
        graph = GraphSession(folder, name)
        for case, user in cases.items():
            answer = graph.run(case, user=ids_of(vocabulary.users, user))
            numbers = [rows.of(index) for index in user.tolist()]
            if name == "history":
                numbers = [number[rows.trained[number]] for number in numbers]
                rating = rows.rating[np.concatenate([*numbers, np.empty(0, np.int64)])]
                graph.check_equal(case, "ratings", answer["rating"], rating)
            number = np.concatenate([*numbers, np.empty(0, np.int64)])
            position = np.repeat(np.arange(len(user)), list(map(len, numbers)))
            graph.check_equal(case, "users", answer["position"], position)
            graph.check_equal(case, "items", vocabulary.items.indices(answer["item"]), rows.item[number])
            graph.check_equal(case, "places", answer["place"] + 1, rows.item[number])


GRAPHS = GraphFamily(build, verify)
