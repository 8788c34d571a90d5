"""ONNX graphs written node by node, also around a core of torch, for what torch has no words for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from cflightning.data.ids import Ids
from cflightning.models.network import RatingScale
from cflightning_export.onnx_tools.id_table import Dense, dense, narrowest

OPSET, ML_OPSET, IR_VERSION = 18, 4, 10
SHORT = 1 << 16
"""Numbers in a table that may be widened as a whole, for every graph again."""
END = np.iinfo(np.int64).max
"""Of a slice that goes to the end."""

Value = tuple[str, int, list[Any]]
"""Name, element type and lengths of a graph input or output."""


class Nodes:
    """A graph as it grows; values go by their names.

    Args:
        prefix: of names that are made up: those of a branch or a loop must not be those of the graph around it.
    """

    def __init__(self, prefix: str = "v") -> None:
        self.prefix = prefix
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}
        self.tensors: list[TensorProto] = []
        self.sides: list[tuple[Ids, Dense | None]] = []
        self.widened: dict[str, str] = {}

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
        targets = (to or f"{self.prefix}{len(self.nodes)}").split()
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

    def integer(self, value: int) -> str:
        """A constant int64 []."""
        return self.constant(f"integer_{value}".replace("-", "minus_"), value, np.int64)

    def cast(self, source: str, kind: int, to: str | None = None) -> str:
        """To another element type."""
        target = to or f"{self.prefix}{len(self.nodes)}"
        self.nodes.append(helper.make_node("Cast", [source], [target], to=kind))
        return target

    def slice(self, source: str, start: str, end: str, axis: int = 0, to: str | None = None) -> str:
        """Part of an axis; the ends are int64 [1]."""
        return self("Slice", source, start, end, self.integers(axis), to=to)

    def rows(self, ids: Ids, source: str, to: str | None = None) -> str:
        """Raw ids [n] -> rows int64 [n]; 0 where an id is not known.

        Ids that are not `dense` are keys of a LabelEncoder, which holds them itself. The others are places in a table,
        which all graphs share: beyond its ends its last place is meant, -1 from below.
        """
        number, table = self._side(ids)
        if table is None:
            keys = {f"keys_{'int64s' if ids.kind == 'int64' else 'strings'}": ids.values.tolist()}
            rows = list(range(1, len(ids) + 1))
            return self("LabelEncoder", source, to=to, domain="ai.onnx.ml", values_int64s=rows, default_int64=0, **keys)
        place = self("Clip", source, self.integer(table.first - 1), self.integer(table.last + 1))
        if table.first:
            place = self("Sub", place, self.integer(table.first))
        return self._pick(f"rows_{number}", table.rows, "Gather", place, to=to)

    def raw(self, ids: Ids, *where: str, to: str, op: str = "Gather") -> str:
        """Raw ids at places among the known ones: int64 [any shape] -> [same]; -1 leads to one that means nothing.

        Args:
            ids: of the side.
            where: the places, or what else the operator takes.
            to: name of the output.
            op: takes ids from the list of all.
        """
        name = f"ids_{self._side(ids)[0]}"
        if ids.kind == "int64":
            return self._pick(name, ids.values, op, *where, to=to)
        return self(op, self.constant(name, ids.values, object), *where, to=to)

    def _side(self, ids: Ids) -> tuple[int, Dense | None]:
        """A number for ids that the graph uses, and their table."""
        for number, (known, table) in enumerate(self.sides):
            if known is ids:
                return number, table
        self.sides.append((ids, dense(ids)))
        return len(self.sides) - 1, self.sides[-1][1]

    def _pick(self, name: str, values: NDArray[np.int64], op: str, *where: str, to: str | None) -> str:
        """Some of many integers, which are stored in as few bits as hold them, as int64.

        A short table is widened when a runtime loads the graph. A long one stays in the file that all graphs share, and
        what was picked is widened.
        """
        table = self.constant(name, values, narrowest(values))
        if len(values) > SHORT:
            return self.cast(self(op, table, *where), TensorProto.INT64, to)
        if name not in self.widened:
            self.widened[name] = self.cast(table, TensorProto.INT64)
        return self(op, self.widened[name], *where, to=to)

    def known(self, row: str) -> str:
        """Adds the output `known` bool [n]: whether rows are those of known ids."""
        return self("Greater", row, self.integer(0), to="known")

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
