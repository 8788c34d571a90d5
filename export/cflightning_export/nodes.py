"""ONNX graphs written node by node, also around a core of torch, for what torch has no words for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cflightning.data.ids import Ids
from cflightning.models.network import RatingScale

OPSET, ML_OPSET, IR_VERSION = 18, 4, 10
END = np.iinfo(np.int64).max
"""Of a slice that goes to the end."""

Value = tuple[str, int, list[Any]]
"""Name, element type and lengths of a graph input or output."""


class Nodes:
    """A graph as it grows; values go by their names."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}
        self.tensors: list[TensorProto] = []

    def __call__(self, op: str, *sources: str, to: str | None = None, domain: str = "", **attributes: Any) -> str:
        """Add a node and return the name of its (first) output.

        Args:
            op: operator.
            sources: what it reads.
            to: names of the outputs, a blank between two; without, a name is made up, and for the places that a TopK
                finds the same name with `_index`.
            domain: of the operator.
            attributes: of the node.
        """
        targets = (to or f"v{len(self.nodes)}").split()
        if op == "TopK" and len(targets) == 1:
            targets.append(f"{targets[0]}_index")
        self.nodes.append(helper.make_node(op, sources, targets, domain=domain, **attributes))
        return targets[0]

    def core(self, model: onnx.ModelProto) -> None:
        """Add the nodes and tables that torch has exported; its inputs and outputs go by their names."""
        self.nodes.extend(model.graph.node)
        self.tensors.extend(model.graph.initializer)

    def constant(self, name: str, value: Any, dtype: Any = np.float32) -> str:
        """Add a constant, float32 unless said otherwise; the same name means the same value."""
        if name not in self.constants:
            self.constants[name] = np.asarray(value, dtype=dtype, order="C")
        return name

    def integers(self, *values: int) -> str:
        """A constant int64 [values]."""
        return self.constant("integers_" + "_".join(map(str, values)).replace("-", "minus_"), values, np.int64)

    def cast(self, source: str, kind: int, to: str | None = None) -> str:
        """To another element type."""
        target = to or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node("Cast", [source], [target], to=kind))
        return target

    def slice(self, source: str, start: str, end: str, axis: int = 0, to: str | None = None) -> str:
        """Part of an axis; the ends are int64 [1]."""
        return self("Slice", source, start, end, self.integers(axis), to=to)

    def rows(self, ids: Ids, source: str, to: str | None = None) -> str:
        """Raw ids [n] -> rows int64 [n]; 0 where an id is not known."""
        keys = {f"keys_{'int64s' if ids.kind == 'int64' else 'strings'}": ids.values.tolist()}
        numbers = list(range(1, len(ids) + 1))
        return self("LabelEncoder", source, to=to, domain="ai.onnx.ml", values_int64s=numbers, default_int64=0, **keys)

    def known(self, row: str) -> str:
        """Adds the output `known` bool [n]: whether rows are those of known ids."""
        return self("Greater", row, self.constant("unknown_row", 0, np.int64), to="known")

    def raw(self, ids: Ids, rows: str, to: str) -> str:
        """Rows int64 [n] -> raw ids [n]; that of row 0 means nothing."""
        values = np.concatenate([ids.values[:1], ids.values])
        return self("Gather", self.constant("raw_ids", values, ids.values.dtype), rows, to=to)

    def scaled(self, scale: RatingScale, logit: str, to: str | None = None, *, fillers: bool = True) -> str:
        """Logits to rating units, as `RatingScale` does outside training.

        Args:
            scale: of the network.
            logit: float, any shape.
            to: name of the scores; one is made up without.
            fillers: whether logits may be -inf, which they stay.
        """
        value = logit
        if scale.sigmoid:
            share = self("Sigmoid", value)
            wide = self("Mul", share, self.constant("width", scale.high - scale.low))
            value = self("Add", wide, self.constant("low", scale.low))
        if scale.rating_range is None:
            return self("Identity", value, to=to) if to else value
        low, high = scale.rating_range
        limits = self.constant("lowest", low), self.constant("highest", high)
        if not fillers:
            return self("Clip", value, *limits, to=to)
        held = self("Clip", value, *limits)
        return self("Where", self("IsInf", logit, detect_positive=0), logit, held, to=to)

    def branch(self, name: str, outputs: Sequence[Value]) -> onnx.GraphProto:
        """The finished branch of an `If`; it reads values and constants of the graph around it."""
        return helper.make_graph(self.nodes, name, [], [helper.make_tensor_value_info(*value) for value in outputs])

    def model(self, name: str, inputs: Sequence[Value], outputs: Sequence[Value]) -> onnx.ModelProto:
        """The finished graph; constants that no node reads are dropped."""
        used = {source for node in _with_branches(self.nodes) for source in node.input}
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info(*value) for value in inputs],
            [helper.make_tensor_value_info(*value) for value in outputs],
            self.tensors + [_tensor(key, value) for key, value in self.constants.items() if key in used],
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="cflightning")


def element(ids: Ids) -> int:
    """The ONNX type of ids."""
    return int(TensorProto.INT64 if ids.kind == "int64" else TensorProto.STRING)


def _with_branches(nodes: Iterable[Any]) -> Iterator[Any]:
    """Nodes and those inside their branches."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            yield from _with_branches(attribute.g.node)


def _tensor(name: str, value: np.ndarray) -> TensorProto:
    if value.dtype == object:
        return helper.make_tensor(name, TensorProto.STRING, value.shape, [text.encode() for text in value.tolist()])
    return numpy_helper.from_array(value, name)
