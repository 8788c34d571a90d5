"""An independent writer of fold-in graphs for bundles of numpy tables, with another solver than the exporter's.

Factors and bias are those of ridge regression with penalty 1 on the logits of the ratings; interactions have the
target 1.
"""

from __future__ import annotations

import json

import numpy as np
from onnx import TensorProto

STEPS = 40
"""Steps of the Newton-Schulz iteration for the matrix inverse, for which ONNX has no operator."""


class Reference:
    """The expected results in numpy and float64.

    Args:
        tables: the tables of the bundle.
    """

    def __init__(self, tables):
        self.tables, self.range = tables, tables.rating_range
        self.z = np.column_stack([tables.item_vectors, np.ones(len(tables.item_vectors))]).astype(float)
        self.offset = tables.item_bias.astype(float) + tables.global_bias

    def target(self, ratings):
        if self.range is None:
            return np.ones(len(ratings))
        low, high = self.range
        share = np.clip((np.where(np.isnan(ratings), high, ratings) - low) / (high - low), 0.05, 0.95)
        return np.log(share / (1 - share))

    def solve(self, items, ratings):
        """Factors and bias, and the contribution of each item to them, [n, dim + 1]."""
        rows = self.tables.rows(items, self.tables.item_ids)
        z = self.z[rows] * (rows > 0)[:, None]
        inverse = np.linalg.inv(z.T @ z + np.eye(z.shape[1]))
        each = (z @ inverse) * (self.target(np.asarray(ratings, float)) - self.offset[rows])[:, None]
        return each.sum(0), each

    def score(self, items, ratings, targets):
        x, _ = self.solve(items, ratings)
        rows = self.tables.rows(targets, self.tables.item_ids)
        return self.scaled(self.z[rows] @ x + self.offset[rows])

    def scaled(self, logits):
        if self.range is None:
            return logits
        return self.range[0] + (self.range[1] - self.range[0]) / (1 + np.exp(-logits))

    def best(self, items, ratings, k, exclude=()):
        candidates = [item for item in self.tables.item_ids.tolist() if item not in {*items, *exclude}]
        scores = self.score(items, ratings, candidates)
        return [candidates[n] for n in np.argsort(-scores, kind="stable")][:k]


def add(folder, tables, bundles):
    """Write the graphs into a bundle's folder and list them in its manifest."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    graphs = {"fold_in": _fold_in(tables, bundles), "explain": _explain(tables.recommender, bundles)}
    if tables.beside is not None:
        graphs["fold_in_choice"] = _fold_in(tables.beside, bundles)
    for name, graph in graphs.items():
        bundles.graphs.save(graph, {}, folder / f"{name}.onnx")
        manifest["graphs"][name] = f"{name}.onnx"
    del manifest["files"]
    bundles.write_manifest(folder, manifest)
    return folder


def _fold_in(tables, bundles):
    g = _solved(tables, bundles)
    g.input("k", TensorProto.INT64, 1)
    g.input("exclude_item", g.item, "m")
    g.input("score_item", g.item, "s")
    g.output("best", g.item, "count")
    g.output("score", TensorProto.FLOAT, "count")
    g.output("vector", TensorProto.FLOAT, tables.item_vectors.shape[1] + 1)
    g.output("asked", TensorProto.FLOAT, "s")
    g.output("known", TensorProto.BOOL, "n")
    g.const("flat", [-1], np.int64)
    g.node("Reshape", "x flat", "vector")
    g.to_rows("exclude_item", "exclude_row", tables.item_ids)
    g.to_rows("score_item", "score_row", tables.item_ids)
    g.node("MatMul", "z vector", "products")
    g.node("Add", "products offset", "logits")
    g.const("nothing", -np.inf, np.float32)
    g.const("zeros", [0], np.int64)
    g.node("Concat", "zeros row exclude_row", "out_rows", axis=0)
    g.node("Shape", "out_rows", "out_count")
    g.node("Expand", "nothing out_count", "nothings")
    g.node("ScatterElements", "logits out_rows nothings", "masked")
    g.const("items", [len(tables.item_ids)], np.int64)
    g.node("Min", "k items", "count")
    g.node("TopK", "masked count", "top index")
    g.const("ids", np.concatenate([tables.item_ids[:1], tables.item_ids]))
    g.node("Gather", "ids index", "best")
    g.node("Gather", "logits score_row", "asked_logit")
    if tables.rating_range is None:
        g.node("Identity", "top", "score")
        g.node("Identity", "asked_logit", "asked")
        return g
    low, high = tables.rating_range
    g.const("low", low, np.float32)
    g.const("span", high - low, np.float32)
    for logit, score in (("top", "score_or_low"), ("asked_logit", "asked")):
        g.node("Sigmoid", logit, f"{logit}_share")
        g.node("Mul", f"{logit}_share span", f"{logit}_wide")
        g.node("Add", f"{logit}_wide low", score)
    g.node("Equal", "top nothing", "filler")
    g.node("Where", "filler nothing score_or_low", "score")
    return g


def _explain(tables, bundles):
    g = _solved(tables, bundles)
    g.input("target", g.item, "t")
    g.input("user", g.user, "u")
    for name, shape in (("contribution", "tn"), ("base", "t"), ("rest", "t"), ("logit", "t"), ("score", "t"),
                        ("similarity", "tn")):  # fmt: skip
        g.output(name, TensorProto.FLOAT, *shape)
    g.output("known", TensorProto.BOOL, "n")
    g.to_rows("target", "target_row", tables.item_ids)
    g.to_rows("user", "user_row", tables.user_ids)
    g.node("Gather", "z target_row", "zt")
    g.node("Gather", "offset target_row", "base")
    g.node("Gemm", "zt each", "contribution", transB=1)
    vectors, bias = tables.users()
    g.const("trained", np.column_stack([vectors, bias]), np.float32)
    g.node("Gather", "trained user_row", "named")
    g.node("Concat", "x named", "either", axis=0)
    g.const("last", [-1], np.int64)
    g.node("Gather", "either last", "answering")
    g.node("Gemm", "answering zt", "product_row", transB=1)
    g.node("Reshape", "product_row last", "product")
    g.node("Add", "product base", "logit")
    g.node("ReduceSum", "contribution one", "added", keepdims=0)
    g.node("Sub", "product added", "rest")
    g.scale("logit", "score")
    norms = np.linalg.norm(tables.item_vectors, axis=1, keepdims=True)
    unit = np.divide(tables.item_vectors, norms, where=norms > 0, out=np.zeros_like(tables.item_vectors))
    g.const("unit", unit, np.float32)
    g.node("Gather", "unit target_row", "unit_target")
    g.node("Gather", "unit row", "unit_given")
    g.node("Gemm", "unit_target unit_given", "similarity", transB=1)
    return g


def _solved(tables, bundles):
    """Start a graph with the solution `x` [1, E] and the contribution of `each` item to it [n, E]."""
    g, reference = bundles.graphs.Graph(tables), Reference(tables)
    width = reference.z.shape[1]
    g.input("item", g.item, "n")
    g.input("rating", TensorProto.FLOAT, "n")
    g.to_rows("item", "row", tables.item_ids)
    g.const("z", reference.z, np.float32)
    g.const("offset", reference.offset, np.float32)
    g.const("zero", 0, np.int64)
    g.const("one", [1], np.int64)
    g.node("Greater", "row zero", "known")
    g.node("Cast", "known", "mask", to=TensorProto.FLOAT)
    g.node("Unsqueeze", "mask one", "mask_column")
    g.node("Gather", "z row", "all_z")
    g.node("Mul", "all_z mask_column", "zn")
    g.node("Gather", "offset row", "on")
    g.const("eye", np.eye(width), np.float32)
    g.node("Gemm", "zn zn eye", "a", transA=1)
    g.node("ReduceL2", "a", "norm")
    g.node("Mul", "norm norm", "norm2")
    g.node("Div", "a norm2", "inverse0")
    for n in range(STEPS):
        g.node("MatMul", f"a inverse{n}", f"product{n}")
        g.node("MatMul", f"inverse{n} product{n}", f"back{n}")
        g.node("Add", f"inverse{n} inverse{n}", f"twice{n}")
        g.node("Sub", f"twice{n} back{n}", f"inverse{n + 1}")
    if tables.rating_range is None:
        g.const("aim", [1.0], np.float32)
    else:
        low, high = tables.rating_range
        for name, value in (("top_of", high), ("floor", low), ("width", high - low), ("least", 0.05), ("most", 0.95),
                            ("full", 1.0)):  # fmt: skip
            g.const(name, value, np.float32)
        g.node("IsNaN", "rating", "is_liked")
        g.node("Where", "is_liked top_of rating", "meant")
        g.node("Sub", "meant floor", "above")
        g.node("Div", "above width", "wide_share")
        g.node("Clip", "wide_share least most", "share")
        g.node("Sub", "full share", "other")
        g.node("Div", "share other", "odds")
        g.node("Log", "odds", "aim")
    g.node("Sub", "aim on", "residual")
    g.node("Unsqueeze", "residual one", "residual_column")
    g.node("MatMul", f"zn inverse{STEPS}", "solved")
    g.node("Mul", "solved residual_column", "each")
    g.node("ReduceSum", "each first", "x", keepdims=1)
    g.const("first", [0], np.int64)
    return g
