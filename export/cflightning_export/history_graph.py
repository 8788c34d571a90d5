"""The graph that knows what users have rated or chosen: the training rows, packed into three to eight bytes each."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from cflightning.data.vocabulary import Vocabulary
from cflightning_export.nodes import Nodes, Value, element
from cflightning_export.training_rows import TrainingRows


def history_graph(rows: TrainingRows, vocabulary: Vocabulary) -> onnx.ModelProto:
    """User ids -> `item` ids [m], `place` int64 [m], `rating` float32 [m], `position` int64 [m] of their training rows.

    `place` is the item's in the catalogue, `position` that of the row's user in `user`.
    The rows of one user lie side by side, as in a matrix of compressed sparse rows. Those of many are gathered at once:
    the number of each row is that of its place in the answer, moved by as much as its user's rows begin elsewhere.
    """
    g = Nodes()
    zero, one = g.integer(0), g.integer(1)
    user = g.rows(vocabulary.users, "user")
    begins = np.searchsorted(rows.user, np.arange(vocabulary.users.num_rows + 1))
    g.constant("begins", begins, np.int32 if len(rows.user) < 2**31 else np.int64)
    begin, end = (g.cast(g("Gather", "begins", row), TensorProto.INT64) for row in (user, g("Add", user, one)))
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
    different, codes = np.unique(rows.rating, return_inverse=True)
    if len(different) <= 2**8:
        code = g.cast(g("Gather", g.constant("codes", codes, np.uint8), number), TensorProto.INT64)
        g("Gather", g.constant("ratings", different), code, to="rating")
    else:
        g("Gather", g.constant("ratings", rows.rating), number, to="rating")
    outputs: list[Value] = [
        ("item", element(vocabulary.items), ["m"]),
        ("place", TensorProto.INT64, ["m"]),
        ("rating", TensorProto.FLOAT, ["m"]),
        ("position", TensorProto.INT64, ["m"]),
    ]
    return g.model("history", [("user", element(vocabulary.users), ["n"])], outputs)
