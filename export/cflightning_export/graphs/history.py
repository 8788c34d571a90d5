"""The graphs that know the rows of users: `seen`, all of the table, and `history`, the training rows with ratings."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from cflightning.data.vocabulary import Vocabulary
from cflightning_export.contents.seen_items import SeenRows
from cflightning_export.onnx_tools.builder import Nodes, Value, element


def seen_graph(rows: SeenRows, vocabulary: Vocabulary) -> onnx.ModelProto:
    """User ids -> `item` ids [m], `place` int64 [m], `position` int64 [m] of all their rows.

    `place` is the item's in the catalogue, `position` that of the row's user in `user`.
    """
    g = Nodes()
    user = g.rows(vocabulary.users, "user")
    end = g("Gather", _begins(g, rows, vocabulary), g("Add", user, g.integer(1)))
    _gather_items(g, rows, vocabulary, user, end)
    return _model(g, "seen", vocabulary)


def history_graph(rows: SeenRows, vocabulary: Vocabulary) -> onnx.ModelProto:
    """The training rows alone, as `seen_graph` has all rows, and `rating` float32 [m] as well."""
    g = Nodes()
    user = g.rows(vocabulary.users, "user")
    begins = np.searchsorted(rows.user, np.arange(vocabulary.users.num_rows))
    ends = begins + np.bincount(rows.user[rows.trained], minlength=len(begins))
    _begins(g, rows, vocabulary)
    number = _gather_items(g, rows, vocabulary, user, g("Gather", g.constant("ends", ends, _counting_type(rows)), user))
    different, codes = np.unique(rows.rating, return_inverse=True)
    if len(different) <= 2**8:
        code = g.cast(g("Gather", g.constant("codes", codes, np.uint8), number), TensorProto.INT64)
        g("Gather", g.constant("ratings", different), code, to="rating")
    else:
        g("Gather", g.constant("ratings", rows.rating), number, to="rating")
    return _model(g, "history", vocabulary, ("rating", TensorProto.FLOAT, ["m"]))


def _gather_items(g: Nodes, rows: SeenRows, vocabulary: Vocabulary, user: str, end: str) -> str:
    """Add the outputs `item`, `place` and `position`.

    The rows of one user lie side by side, as in a matrix of compressed sparse rows. Those of many are gathered at once:
    the number of each row is that of its place in the answer, moved by as much as its user's rows begin elsewhere.

    Args:
        g: the graph, with the constant `begins`.
        rows: all rows.
        vocabulary: their ids.
        user: int64 [n], rows of the users asked for.
        end: int32 or int64 [n], where the rows of each of them end.

    Returns:
        The number of each row among all rows, int64 [m].
    """
    zero, one = g.integer(0), g.integer(1)
    begin, end = (g.cast(edge, TensorProto.INT64) for edge in (g("Gather", "begins", user), end))
    count = g("Sub", end, begin)
    until, total = g("CumSum", count, zero), g("ReduceSum", count, keepdims=0)
    nth = g("Range", zero, total, one)
    # A one where each user's rows end, added up, counts the users who came before. The last ones may end behind
    # the last row, which is why there is one more than rows.
    zeros = g("Expand", zero, g("Unsqueeze", g("Add", total, one), g.integers(0)))
    ones = g("Expand", one, g("Shape", "user"))
    marks = g("ScatterND", zeros, g("Unsqueeze", until, g.integers(-1)), ones, reduction="add")
    position = g("Gather", g("CumSum", marks, zero), nth, to="position")
    number = g("Add", nth, g("Gather", g("Sub", end, until), position))
    items = g.constant("items", rows.item - 1, np.uint16 if len(vocabulary.items) <= 2**16 else np.int32)
    g.cast(g("Gather", items, number), TensorProto.INT64, to="place")
    g.raw(vocabulary.items, "place", to="item")
    return number


def _begins(g: Nodes, rows: SeenRows, vocabulary: Vocabulary) -> str:
    """Where the rows of each user row begin, and, last, where all end."""
    begins = np.searchsorted(rows.user, np.arange(vocabulary.users.num_rows + 1))
    return g.constant("begins", begins, _counting_type(rows))


def _counting_type(rows: SeenRows) -> type[np.signedinteger]:
    return np.int32 if len(rows.user) < 2**31 else np.int64


def _model(g: Nodes, name: str, vocabulary: Vocabulary, *more: Value) -> onnx.ModelProto:
    outputs: list[Value] = [
        ("item", element(vocabulary.items), ["m"]),
        ("place", TensorProto.INT64, ["m"]),
        *more,
        ("position", TensorProto.INT64, ["m"]),
    ]
    return g.model(name, [("user", element(vocabulary.users), ["n"])], outputs)
