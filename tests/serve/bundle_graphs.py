"""ONNX graphs of bundles for the tests, written node by node after ``serve/BUNDLE.md``."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

PAGE = 4096
ELEMENT_TYPES = {"int64": TensorProto.INT64, "string": TensorProto.STRING}


def id_type(ids):
    """Return the id type of the manifest."""
    return "int64" if ids.dtype == np.int64 else "string"


class Weights:
    """The weights file: tables at multiples of the page size, short ones at multiples of 64 bytes."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("wb")
        self.name = path.name

    def add(self, name, table):
        table = np.ascontiguousarray(table, dtype="<f4")
        at = self.file.tell()
        self.file.write(bytes(-at % (PAGE if table.nbytes >= PAGE else 64)))
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=table.shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", self.name), ("offset", self.file.tell()), ("length", table.nbytes)):
            tensor.external_data.add(key=key, value=str(value))
        self.file.write(table.tobytes())
        return tensor

    def close(self):
        self.file.close()


def add_tables(weights, tables):
    """Write the tables into the weights file; return their tensors by name."""
    vectors, bias = tables.users()
    norms = np.linalg.norm(tables.item_vectors, axis=1)
    return {
        "user_vectors": weights.add("user_vectors", vectors),
        "item_vectors": weights.add("item_vectors", tables.item_vectors),
        # The global bias is added to the biases of all users, including the unknown one.
        "user_bias": weights.add("user_bias", bias[:, None] + np.float32(tables.global_bias)),
        "item_bias": weights.add("item_bias", tables.item_bias),
        "item_scale": weights.add("item_scale", np.divide(1, norms, where=norms > 0, out=np.zeros_like(norms))),
    }


class Graph:
    """A graph under construction; nodes name their inputs and outputs in one string each."""

    def __init__(self, tables) -> None:
        self.tables, self.nodes, self.constants, self.inputs, self.outputs = tables, [], [], [], []
        self.user, self.item = ELEMENT_TYPES[id_type(tables.user_ids)], ELEMENT_TYPES[id_type(tables.item_ids)]

    def input(self, name, type_, *shape):
        self.inputs.append(helper.make_tensor_value_info(name, type_, shape))

    def output(self, name, type_, *shape):
        self.outputs.append(helper.make_tensor_value_info(name, type_, shape))

    def const(self, name, value, dtype=None):
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))

    def node(self, op, inputs, outputs, **attributes):
        self.nodes.append(helper.make_node(op, inputs.split(), outputs.split(), **attributes))

    def to_rows(self, ids, rows, known):
        """Convert ids to indices; 0 for unknown ids."""
        self.node(
            "LabelEncoder",
            ids,
            rows,
            domain="ai.onnx.ml",
            keys_tensor=numpy_helper.from_array(known),
            values_tensor=numpy_helper.from_array(np.arange(1, len(known) + 1)),
            default_tensor=numpy_helper.from_array(np.array([0])),
        )

    def scale(self, logit, score):
        """Scale a logit into the rating range."""
        if self.tables.rating_range is None:
            self.node("Identity", logit, score)
            return
        low, high = self.tables.rating_range
        self.const("low", low, np.float32)
        self.const("span", high - low, np.float32)
        self.node("Sigmoid", logit, "squashed")
        self.node("Mul", "squashed span", "stretched")
        self.node("Add", "stretched low", score)


def score(tables):
    g = Graph(tables)
    g.input("user", g.user, "n")
    g.input("item", g.item, "n")
    g.output("score", TensorProto.FLOAT, "n")
    g.output("known", TensorProto.BOOL, "n", 2)
    g.const("one", [1], np.int64)
    g.const("zero", 0, np.int64)
    g.to_rows("user", "user_row", tables.user_ids)
    g.to_rows("item", "item_row", tables.item_ids)
    g.node("Gather", "user_vectors user_row", "u")
    g.node("Gather", "item_vectors item_row", "i")
    g.node("Mul", "u i", "products")
    g.node("ReduceSum", "products one", "dot", keepdims=0)
    g.node("Gather", "user_bias user_row", "column")
    g.node("Squeeze", "column one", "bu")
    g.node("Gather", "item_bias item_row", "bi")
    g.node("Sum", "dot bu bi", "logit")
    g.scale("logit", "score")
    g.node("Unsqueeze", "user_row one", "user_column")
    g.node("Unsqueeze", "item_row one", "item_column")
    g.node("Concat", "user_column item_column", "both", axis=1)
    g.node("Greater", "both zero", "known")
    return g


def recommend(tables, allowed=False):
    g = Graph(tables)
    g.input("user", g.user, "n")
    g.input("k", TensorProto.INT64, 1)
    g.input("exclude_user", TensorProto.INT64, "m")
    g.input("exclude_item", g.item, "m")
    g.output("item", g.item, "n", "k'")
    g.output("score", TensorProto.FLOAT, "n", "k'")
    g.output("known", TensorProto.BOOL, "n")
    g.to_rows("user", "user_row", tables.user_ids)
    g.to_rows("exclude_item", "exclude_row", tables.item_ids)
    g.node("Gather", "user_vectors user_row", "u")
    g.node("Gemm", "u item_vectors item_bias", "logits", transB=1)
    _mask(g, "logits", "exclude_user", "exclude_row", "left" if allowed else "masked")
    if allowed:
        g.input("allowed", TensorProto.BOOL, len(tables.item_ids))
        g.const("yes", [True])
        g.node("Concat", "yes allowed", "allowed_rows", axis=0)
        g.node("Where", "allowed_rows left nothing", "masked")
    _best(g, "masked", "item", "best")
    g.node("Gather", "user_bias user_row", "bu")
    g.node("Add", "best bu", "logit")
    g.scale("logit", "scaled")
    g.node("Equal", "best nothing", "filler")
    g.node("Where", "filler nothing scaled", "score")
    g.node("Greater", "user_row zero", "known")
    return g


def filtered(tables):
    return recommend(tables, allowed=True)


def scores(tables):
    g = Graph(tables)
    g.input("user", g.user, "n")
    for name in ("order", "score"):
        g.output(name, TensorProto.FLOAT, "n", len(tables.item_ids))
    g.output("known", TensorProto.BOOL, "n")
    g.const("one", [1], np.int64)
    g.const("zero", 0, np.int64)
    g.const("end", [len(tables.item_ids) + 1], np.int64)
    g.to_rows("user", "user_row", tables.user_ids)
    g.node("Gather", "user_vectors user_row", "u")
    g.node("Gemm", "u item_vectors item_bias", "products", transB=1)
    g.node("Gather", "user_bias user_row", "bu")
    g.node("Add", "products bu", "every_row")
    g.node("Slice", "every_row one end one", "order")
    g.scale("order", "score")
    g.node("Greater", "user_row zero", "known")
    return g


def factors(tables):
    g = Graph(tables)
    g.input("item", g.item, "n")
    g.output("vector", TensorProto.FLOAT, "n", tables.item_vectors.shape[1])
    g.output("bias", TensorProto.FLOAT, "n")
    g.output("known", TensorProto.BOOL, "n")
    g.const("zero", 0, np.int64)
    g.to_rows("item", "row", tables.item_ids)
    g.node("Gather", "item_vectors row", "vector")
    g.node("Gather", "item_bias row", "bias")
    g.node("Greater", "row zero", "known")
    return g


def users(tables):
    g = Graph(tables)
    g.input("begin", TensorProto.INT64, 1)
    g.input("end", TensorProto.INT64, 1)
    g.output("user", g.user, "n")
    g.const("user_ids", tables.user_ids)
    g.node("Slice", "user_ids begin end", "user")
    return g


def similar_users(tables):
    g = _user_range(tables)
    g.input("user", g.user, "n")
    g.output("similarity", TensorProto.FLOAT, "n", "m")
    g.output("known", TensorProto.BOOL, "n")
    g.to_rows("user", "row", tables.user_ids)
    g.node("Gather", "user_vectors row", "v")
    for vectors, unit in (("v", "unit"), ("others", "other_units")):
        g.node("ReduceL2", f"{vectors} one", f"norm_of_{vectors}")
        g.node("Max", f"norm_of_{vectors} tiny", f"length_of_{vectors}")
        g.node("Div", f"{vectors} length_of_{vectors}", unit)
    g.const("tiny", 1e-30, np.float32)
    g.const("nothing", -np.inf, np.float32)
    g.node("Gemm", "unit other_units", "cosines", transB=1)
    g.node("Unsqueeze", "row one", "row_column")
    g.node("Equal", "row_column rows", "itself")
    g.node("Where", "itself nothing cosines", "similarity")
    g.node("Greater", "row zero", "known")
    return g


def audience(tables):
    g = _user_range(tables)
    g.input("item", g.item, "n")
    for name in ("order", "score"):
        g.output(name, TensorProto.FLOAT, "n", "m")
    g.output("known", TensorProto.BOOL, "n")
    g.to_rows("item", "row", tables.item_ids)
    g.node("Gather", "item_vectors row", "v")
    g.node("Gemm", "v others", "products", transB=1)
    g.node("Slice", "user_bias first last axis", "bias_column")
    g.node("Transpose", "bias_column", "bu")
    g.node("Gather", "item_bias row", "bi")
    g.node("Unsqueeze", "bi one", "bi_column")
    g.node("Sum", "products bu bi_column", "order")
    g.scale("order", "score")
    g.node("Greater", "row zero", "known")
    return g


def _user_range(tables):
    """Begin a graph with the vectors ``others`` and the indices ``rows`` of a range of users."""
    g = Graph(tables)
    g.input("begin", TensorProto.INT64, 1)
    g.input("end", TensorProto.INT64, 1)
    g.const("one", [1], np.int64)
    g.const("zero", 0, np.int64)
    g.const("axis", [0], np.int64)
    g.const("every_row", np.arange(len(tables.user_ids) + 1))
    g.node("Add", "begin one", "first")
    g.node("Add", "end one", "last")
    g.node("Slice", "every_row first last", "rows")
    g.node("Slice", "user_vectors first last axis", "others")
    return g


def history(tables, rated=True):
    """History by comparing the user of every rating with every requested user: slow, but short."""
    g = Graph(tables)
    g.input("user", g.user, "n")
    g.output("item", g.item, "m")
    g.output("place", TensorProto.INT64, "m")
    if rated:
        g.output("rating", TensorProto.FLOAT, "m")
    g.output("position", TensorProto.INT64, "m")
    user, item, rating = (np.array(column) for column in zip(*tables.history, strict=True))
    g.const("owner", user + 1, np.int64)
    g.const("places", item, np.int64)
    g.const("ratings", rating, np.float32)
    g.const("item_ids", tables.item_ids)
    g.const("one", [1], np.int64)
    g.const("minus", [-1], np.int64)
    g.to_rows("user", "row", tables.user_ids)
    g.node("Unsqueeze", "row one", "row_column")
    g.node("Equal", "row_column owner", "whose")
    g.node("NonZero", "whose", "found")
    g.node("Split", "found", "position_2 number_2", axis=0, num_outputs=2)
    g.node("Reshape", "position_2 minus", "position")
    g.node("Reshape", "number_2 minus", "number")
    g.node("Gather", "places number", "place")
    g.node("Gather", "ratings number", "rating")
    g.node("Gather", "item_ids place", "item")
    return g


def similar(tables):
    g = Graph(tables)
    g.input("item", g.item, "n")
    g.input("k", TensorProto.INT64, 1)
    g.output("similar", g.item, "n", "k'")
    g.output("similarity", TensorProto.FLOAT, "n", "k'")
    g.output("known", TensorProto.BOOL, "n")
    g.to_rows("item", "row", tables.item_ids)
    g.node("Gather", "item_vectors row", "v")
    g.node("Gather", "item_scale row", "own_scale")
    g.node("Unsqueeze", "own_scale one", "scale_column")
    g.node("Mul", "v scale_column", "unit")
    g.node("Gemm", "unit item_vectors", "products", transB=1)
    g.node("Mul", "products item_scale", "cosines")
    g.node("Shape", "row", "length")
    g.node("Squeeze", "length", "count")
    g.node("Range", "zero count step", "position")
    _mask(g, "cosines", "position", "row", "masked")
    _best(g, "masked", "similar", "similarity")
    g.const("step", 1, np.int64)
    g.node("Greater", "row zero", "known")
    return g


def _mask(g, scores, position, row, masked):
    """Set -inf at every (position, row)."""
    g.const("one", [1], np.int64)
    g.const("zero", 0, np.int64)
    g.const("nothing", -np.inf, np.float32)
    g.node("Unsqueeze", f"{position} one", "position_column")
    g.node("Unsqueeze", f"{row} one", "row_column")
    g.node("Concat", "position_column row_column", "where", axis=1)
    g.node("Shape", row, "how_many")
    g.node("Expand", "nothing how_many", "nothings")
    g.node("ScatterND", f"{scores} where nothings", masked)


def _best(g, masked, item, score):
    """Select the k best known items, as ids."""
    g.const("known_items", [len(g.tables.item_ids)], np.int64)
    g.const("end", [len(g.tables.item_ids) + 1], np.int64)
    g.const("item_ids", g.tables.item_ids)
    g.node("Slice", f"{masked} one end one", "catalogue")
    g.node("Min", "k known_items", "k_or_all")
    g.node("TopK", "catalogue k_or_all", f"{score} index")
    g.node("Gather", "item_ids index", item)


def save(g, shared, path):
    """Write a graph with its constants and the shared tables that it uses."""
    used = {name for node in g.nodes for name in node.input}
    initializers = g.constants + [tensor for name, tensor in shared.items() if name in used]
    graph = helper.make_graph(g.nodes, path.stem, g.inputs, g.outputs, initializers)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 4)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10, producer_name="tests")
    path.write_bytes(model.SerializeToString(deterministic=True))
    onnx.checker.check_model(str(path))
