"""Builder of ONNX graphs whose values can be computed with like arrays: ``a * (1.0 - share)``, ``table[index]``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import ArrayLike, DTypeLike
from onnx import TensorProto, helper, numpy_helper

OPSET, ML_OPSET, IR_VERSION = 18, 4, 10
END = np.iinfo(np.int64).max
"""End of a slice that reaches to the last element."""

TensorType = tuple[int, Sequence[int | str | None]]
"""Element type (of `TensorProto`) and axes: a length, the name of a free length, or None."""


def _infix(operator: str, *, reflected: bool = False) -> Callable[[Value, Operand], Value]:
    """Return the method of an infix operator; reflected where the value stands on the right."""

    def method(self: Value, other: Operand) -> Value:
        return self.graph.add(operator, *((other, self) if reflected else (self, other)))

    return method


@dataclass(eq=False)
class Value:
    """A tensor of a graph. Operators on it add a node to the graph, as numpy's do to arrays.

    Attributes:
        graph: the graph that computes it.
        name: its name in the graph.
        fixed: whether the name must stay: graph inputs, constants and outputs.
    """

    graph: GraphBuilder
    name: str
    fixed: bool = False

    __add__, __radd__ = _infix("Add"), _infix("Add", reflected=True)
    __sub__, __rsub__ = _infix("Sub"), _infix("Sub", reflected=True)
    __mul__, __rmul__ = _infix("Mul"), _infix("Mul", reflected=True)
    __truediv__, __rtruediv__ = _infix("Div"), _infix("Div", reflected=True)
    __pow__ = _infix("Pow")
    __lt__, __le__ = _infix("Less"), _infix("LessOrEqual")
    __gt__, __ge__ = _infix("Greater"), _infix("GreaterOrEqual")
    __or__ = _infix("Or")

    @property
    def T(self) -> Value:
        """The transpose of a matrix."""
        return self.graph.add("Transpose", self)

    def __getitem__(self, key: Index | tuple[Index, ...]) -> Value:
        """Gather or slice along one axis: ``x[index]``, ``x[:, index]``, ``x[1:]``, ``x[:, start:end]``."""
        keys = key if isinstance(key, tuple) else (key,)
        *leading, last = keys
        if not all(axis == slice(None) for axis in leading):
            raise NotImplementedError("only the last axis of an index may be other than ':'")
        if not isinstance(last, slice):
            return self.graph.add("Gather", self, last, axis=len(leading))
        bounds = (0 if last.start is None else last.start), (END if last.stop is None else last.stop)
        start, end = ([bound] if isinstance(bound, int) else bound for bound in bounds)
        return self.graph.add("Slice", self, start, end, [len(leading)])

    def column(self) -> Value:
        """[n] as [n, 1]."""
        return self.graph.add("Unsqueeze", self, [-1])

    def row(self) -> Value:
        """[n] as [1, n]."""
        return self.graph.add("Unsqueeze", self, [0])

    def flat(self) -> Value:
        """Flatten any shape to [n]."""
        return self.graph.add("Reshape", self, [-1])

    def shape(self) -> Value:
        """Return the lengths of all axes: int64 [axes]."""
        return self.graph.add("Shape", self)

    def cast(self, element_type: int) -> Value:
        """Convert the numbers to another element type."""
        return self.graph.add("Cast", self, to=element_type)


Operand = Value | float | Sequence[int]
"""A value, or a literal: a float is float32, an int is int64, a sequence of ints is int64 [n]."""
Index = Value | int | slice


@dataclass(eq=False)
class _Subgraph:
    """The graph in an attribute of `If` or `Loop`; it may read any value of the graphs around it."""

    name: str
    nodes: list[_Node | onnx.NodeProto]
    inputs: list[tuple[Value, TensorType]]
    outputs: list[tuple[Value, TensorType]]

    def proto(self) -> onnx.GraphProto:
        return helper.make_graph(_protos(self.nodes), self.name, _infos(self.inputs), _infos(self.outputs))


Attribute = float | str | Sequence[int] | Sequence[str] | _Subgraph


@dataclass(eq=False)
class _Node:
    """A node whose values have no final names yet."""

    operator: str
    domain: str
    inputs: list[Value]
    outputs: list[Value]
    attributes: Mapping[str, Attribute]

    def proto(self) -> onnx.NodeProto:
        inputs, outputs = ([value.name for value in side] for side in (self.inputs, self.outputs))
        node = helper.make_node(self.operator, inputs, outputs, domain=self.domain)
        for name, value in sorted(self.attributes.items()):
            node.attribute.append(helper.make_attribute(name, value.proto() if isinstance(value, _Subgraph) else value))
        return node


class GraphBuilder:
    """An ONNX graph under construction.

    Every operator of ONNX is a method that adds a node and returns its value: ``g.Gemm(a, b, transB=1)``. Within
    `if_else` and `loop` nodes go to the inner graph, and may read values of the outer one.

    Args:
        name: name of the graph.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._inputs: list[tuple[Value, TensorType]] = []
        self._constants: dict[str, np.ndarray] = {}
        self._tensors: list[TensorProto] = []
        self._scopes: list[list[_Node | onnx.NodeProto]] = [[]]
        self._num_values = 0

    def __getattr__(self, operator: str) -> Callable[..., Value]:
        if not operator[0].isupper():
            raise AttributeError(operator)
        return lambda *operands, **attributes: self.add(operator, *operands, **attributes)

    def add(self, operator: str, *operands: Operand, **attributes: Attribute) -> Value:
        """Add a node with one output."""
        return self.add_node(operator, operands, 1, attributes)[0]

    def add_node(
        self,
        operator: str,
        operands: Sequence[Operand],
        outputs: int,
        attributes: Mapping[str, Attribute],
        domain: str = "",
    ) -> list[Value]:
        """Add a node and return its outputs, which get unique names."""
        values = self._new_values(outputs)
        inputs = [operand if isinstance(operand, Value) else self.literal(operand) for operand in operands]
        self._scopes[-1].append(_Node(operator, domain, inputs, values, attributes))
        return values

    def top_k(self, values: Value, k: Operand, **attributes: int) -> tuple[Value, Value]:
        """Return the k largest values along the last axis, and their indices."""
        best, index = self.add_node("TopK", [values, k], 2, attributes)
        return best, index

    def input(self, name: str, element_type: int, axes: Sequence[int | str | None]) -> Value:
        """Declare an input."""
        value = Value(self, name, fixed=True)
        self._inputs.append((value, (element_type, axes)))
        return value

    def constant(self, name: str, value: ArrayLike, dtype: DTypeLike = np.float32) -> Value:
        """Return a named constant, float32 unless another dtype is given; another value of the name is a ValueError."""
        array = np.asarray(value, dtype=dtype, order="C")
        known = self._constants.setdefault(name, array)
        if known is not array and (known.dtype != array.dtype or not np.array_equal(known, array)):
            raise ValueError(f"{self.name}: constant {name!r} must have one value, got two")
        return Value(self, name, fixed=True)

    def literal(self, value: float | Sequence[int]) -> Value:
        """Convert a Python literal in an expression to a constant."""
        dtype = np.float32 if isinstance(value, float) else np.int64
        text = "_".join(map(str, value)) if isinstance(value, Sequence) else repr(value)
        kind = "float" if isinstance(value, float) else "integers" if isinstance(value, Sequence) else "integer"
        return self.constant(f"{kind}_{text}".replace("-", "minus_"), value, dtype)

    def splice(self, model: onnx.ModelProto, inputs: Mapping[str, Value]) -> Value:
        """Insert the nodes and tables of a model with one output, and return that output.

        Args:
            model: its names must differ from those of this graph.
            inputs: name in the model -> value, which takes that name.
        """
        for name, value in inputs.items():
            value.name, value.fixed = name, True
        self._scopes[-1].extend(model.graph.node)
        self._tensors.extend(model.graph.initializer)
        return Value(self, model.graph.output[0].name, fixed=True)

    def if_else(
        self,
        condition: Value,
        then: Callable[[], Sequence[Value]],
        otherwise: Callable[[], Sequence[Value]],
        types: Sequence[TensorType],
    ) -> list[Value]:
        """Return the values of one of two functions; only the chosen one is computed."""
        builds = {"then_branch": then, "else_branch": otherwise}
        branches = {name: self._subgraph(name, build, [], types) for name, build in builds.items()}
        return self.add_node("If", [condition], len(types), branches)

    def loop(
        self,
        max_turns: int,
        condition: Value,
        state: Sequence[Value],
        body: Callable[..., Sequence[Value]],
        types: Sequence[TensorType],
    ) -> list[Value]:
        """Repeat a function of the state while its condition holds, and return the last state.

        Args:
            max_turns: maximum number of turns.
            condition: bool [], whether there is a first turn.
            state: the values before the first turn.
            body: (state) -> condition of another turn, and the new state.
            types: types of the state.
        """
        boolean: TensorType = (TensorProto.BOOL, [])
        inputs: list[TensorType] = [(TensorProto.INT64, []), boolean, *types]
        inner = self._subgraph("body", lambda _turn, _condition, *values: body(*values), inputs, [boolean, *types])
        return self.add_node("Loop", [max_turns, condition, *state], len(types), {"body": inner})

    def _subgraph(
        self,
        name: str,
        build: Callable[..., Sequence[Value]],
        inputs: Sequence[TensorType],
        outputs: Sequence[TensorType],
    ) -> _Subgraph:
        values = self._new_values(len(inputs))
        self._scopes.append([])
        results = build(*values)
        computed = {id(value) for node in self._scopes[-1] if isinstance(node, _Node) for value in node.outputs}
        # An output must be computed by the inner graph itself.
        results = [value if id(value) in computed else self.add("Identity", value) for value in results]
        pairs = [list(zip(*side, strict=True)) for side in ((values, inputs), (results, outputs))]
        return _Subgraph(f"{name}_{self._num_values}", self._scopes.pop(), *pairs)

    def _new_values(self, number: int) -> list[Value]:
        self._num_values += number
        return [Value(self, f"v{index}") for index in range(self._num_values - number, self._num_values)]

    def model(self, outputs: Mapping[str, tuple[Value, TensorType]]) -> onnx.ModelProto:
        """Finish the graph.

        Args:
            outputs: name -> value and its type.
        """
        for name, (value, _) in outputs.items():
            if value.name == name:
                continue
            if value.fixed:
                value = self.add("Identity", value)
            value.name, value.fixed = name, True
        graph = helper.make_graph(
            _protos(self._scopes[0]),
            self.name,
            _infos(self._inputs),
            [helper.make_tensor_value_info(name, *kind) for name, (_, kind) in outputs.items()],
            self._tensors + [_tensor(name, value) for name, value in self._constants.items()],
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="cflightning")


def _infos(values: Sequence[tuple[Value, TensorType]]) -> list[onnx.ValueInfoProto]:
    return [helper.make_tensor_value_info(value.name, *kind) for value, kind in values]


def _protos(nodes: Sequence[_Node | onnx.NodeProto]) -> list[onnx.NodeProto]:
    return [node.proto() if isinstance(node, _Node) else node for node in nodes]


def _tensor(name: str, value: np.ndarray) -> TensorProto:
    if value.dtype == object:
        return helper.make_tensor(name, TensorProto.STRING, value.shape, [text.encode() for text in value.tolist()])
    return numpy_helper.from_array(value, name)
