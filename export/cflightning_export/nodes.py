"""ONNX graphs written node by node, for what torch has no words for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cflightning.data.ids import Ids
from cflightning.models.network import RatingScale
from cflightning_export.graphs import IR_VERSION, ML_OPSET, OPSET, Value

END = np.iinfo(np.int64).max
"""Of a slice that goes to the end."""


class Nodes:
    """A graph as it grows; values go by their names."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}

    def __call__(self, op: str, *sources: str, to: str | None = None, domain: str = "", **attributes: Any) -> str:
        """Add a node and return the name of its (first) output."""
        target = to or f"{op.lower()}_{len(self.nodes)}"
        targets = [target, f"{target}_index"] if op == "TopK" else [target]
        self.nodes.append(helper.make_node(op, sources, targets, domain=domain, **attributes))
        return target

    def constant(self, name: str, value: Any, dtype: Any = np.float32) -> str:
        """Add a constant, float32 unless said otherwise; the same name means the same value."""
        if name not in self.constants:
            self.constants[name] = np.ascontiguousarray(value, dtype=dtype)
        return name

    def integers(self, *values: int) -> str:
        """A constant int64 [values]."""
        return self.constant("integers_" + "_".join(map(str, values)).replace("-", "minus_"), values, np.int64)

    def cast(self, source: str, kind: int) -> str:
        """To another element type."""
        self.nodes.append(helper.make_node("Cast", [source], [target := f"cast_{len(self.nodes)}"], to=kind))
        return target

    def slice(self, source: str, start: str, end: str, axis: int = 0, to: str | None = None) -> str:
        """Part of an axis; the ends are int64 [1]."""
        return self("Slice", source, start, end, self.integers(axis), to=to)

    def rows(self, ids: Ids, source: str) -> str:
        """Raw ids [n] -> rows int64 [n]; 0 where an id is not known."""
        keys = {f"keys_{'int64s' if ids.kind == 'int64' else 'strings'}": ids.values.tolist()}
        numbers = list(range(1, len(ids) + 1))
        return self("LabelEncoder", source, domain="ai.onnx.ml", values_int64s=numbers, default_int64=0, **keys)

    def raw(self, ids: Ids, rows: str, to: str) -> str:
        """Rows int64 [n] -> raw ids [n]; that of row 0 means nothing."""
        values = np.concatenate([ids.values[:1], ids.values])
        return self("Gather", self.constant("raw_ids", values, ids.values.dtype), rows, to=to)

    def scaled(self, scale: RatingScale, logit: str) -> str:
        """Logits to rating units, as `RatingScale` does outside training; -inf stays."""
        value = logit
        if scale.sigmoid:
            share = self("Sigmoid", value)
            wide = self("Mul", share, self.constant("width", scale.high - scale.low))
            value = self("Add", wide, self.constant("low", scale.low))
        if scale.rating_range is None:
            return value
        low, high = scale.rating_range
        held = self("Clip", value, self.constant("lowest", low), self.constant("highest", high))
        return self("Where", self("IsInf", logit, detect_positive=0), logit, held)

    def model(self, name: str, inputs: Sequence[Value], outputs: Sequence[Value]) -> onnx.ModelProto:
        """The finished graph; constants that no node reads are dropped."""
        used = {source for node in self.nodes for source in node.input}
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info(*value) for value in inputs],
            [helper.make_tensor_value_info(*value) for value in outputs],
            [_tensor(key, value) for key, value in self.constants.items() if key in used],
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="cflightning")


def element(ids: Ids) -> int:
    """The ONNX type of ids."""
    return int(TensorProto.INT64 if ids.kind == "int64" else TensorProto.STRING)


def _tensor(name: str, value: np.ndarray) -> TensorProto:
    if value.dtype == object:
        return helper.make_tensor(name, TensorProto.STRING, value.shape, [text.encode() for text in value.tolist()])
    return numpy_helper.from_array(value, name)
