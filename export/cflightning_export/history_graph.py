"""The graph that knows what users have rated or chosen: the training rows, packed into three to five bytes each."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from cflightning.data.vocabulary import Vocabulary
from cflightning_export.graphs import Value, _assemble, _encode, _kind
from cflightning_export.training_rows import TrainingRows


def history_graph(rows: TrainingRows, vocabulary: Vocabulary) -> onnx.ModelProto:
    """User ids -> `item` ids [m], `place` int64 [m], `rating` float32 [m], `position` int64 [m] of their training rows.

    `place` is the item's in the catalogue, `position` that of the row's user in `user`.
    The rows of one user lie side by side, as in a matrix of compressed sparse rows. Those of many are gathered at once:
    the number of each row is that of its place in the answer, moved by as much as its user's rows begin elsewhere.
    """
    nodes = [
        *_encode("user", "user_row", vocabulary.users),
        helper.make_node("Add", ["user_row", "one"], ["next_row"]),
        helper.make_node("Gather", ["begins", "user_row"], ["begin_32"]),
        helper.make_node("Gather", ["begins", "next_row"], ["end_32"]),
        helper.make_node("Cast", ["begin_32"], ["begin"], to=TensorProto.INT64),
        helper.make_node("Cast", ["end_32"], ["end"], to=TensorProto.INT64),
        helper.make_node("Sub", ["end", "begin"], ["count"]),
        helper.make_node("CumSum", ["count", "axis"], ["until"]),
        helper.make_node("ReduceSum", ["count"], ["total"], keepdims=0),
        helper.make_node("Range", ["zero", "total", "one"], ["nth"]),
        # A one where each user's rows end, added up, counts the users who came before. The last ones may end behind
        # the last row, which is why there is one more than rows.
        helper.make_node("Add", ["total", "one"], ["length"]),
        helper.make_node("Unsqueeze", ["length", "axis_list"], ["shape"]),
        helper.make_node("Expand", ["zero", "shape"], ["zeros"]),
        helper.make_node("Unsqueeze", ["until", "last_axis"], ["until_column"]),
        helper.make_node("Shape", ["user"], ["users"]),
        helper.make_node("Expand", ["one", "users"], ["ones"]),
        helper.make_node("ScatterND", ["zeros", "until_column", "ones"], ["marks"], reduction="add"),
        helper.make_node("CumSum", ["marks", "axis"], ["passed"]),
        helper.make_node("Gather", ["passed", "nth"], ["position"]),
        helper.make_node("Sub", ["end", "until"], ["moved"]),
        helper.make_node("Gather", ["moved", "position"], ["by"]),
        helper.make_node("Add", ["nth", "by"], ["number"]),
        helper.make_node("Gather", ["items", "number"], ["packed_item"]),
        helper.make_node("Cast", ["packed_item"], ["place"], to=TensorProto.INT64),
        helper.make_node("Gather", ["item_ids", "place"], ["item"]),
    ]
    begins = np.searchsorted(rows.user, np.arange(vocabulary.users.num_rows + 1))
    constants = {
        "begins": begins.astype(np.int32 if len(rows.user) < 2**31 else np.int64),
        "items": (rows.item - 1).astype(np.uint16 if len(vocabulary.items) <= 2**16 else np.int32),
        "item_ids": vocabulary.items.values,
        "zero": np.array(0, np.int64),
        "one": np.array(1, np.int64),
        "axis": np.array(0, np.int64),
        "axis_list": np.array([0], np.int64),
        "last_axis": np.array([-1], np.int64),
    }
    different, codes = np.unique(rows.rating, return_inverse=True)
    if len(different) <= 2**8:
        constants |= {"codes": codes.astype(np.uint8), "ratings": different.astype(np.float32)}
        nodes += [
            helper.make_node("Gather", ["codes", "number"], ["packed_rating"]),
            helper.make_node("Cast", ["packed_rating"], ["rating_number"], to=TensorProto.INT64),
            helper.make_node("Gather", ["ratings", "rating_number"], ["rating"]),
        ]
    else:
        constants["ratings"] = rows.rating
        nodes.append(helper.make_node("Gather", ["ratings", "number"], ["rating"]))
    inputs: list[Value] = [("user", _kind(vocabulary.users), ["n"])]
    outputs: list[Value] = [
        ("item", _kind(vocabulary.items), ["m"]),
        ("place", TensorProto.INT64, ["m"]),
        ("rating", TensorProto.FLOAT, ["m"]),
        ("position", TensorProto.INT64, ["m"]),
    ]
    return _assemble("history", onnx.ModelProto(), nodes, [], constants, inputs, outputs)
