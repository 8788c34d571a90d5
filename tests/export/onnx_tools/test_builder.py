"""Expressions of values, compared with the same expressions of numpy arrays."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto

from cflightning_export.onnx_tools.builder import GraphBuilder

VECTOR, MATRIX = (TensorProto.FLOAT, ["n"]), (TensorProto.FLOAT, ["n", "m"])
EXPRESSIONS = {
    "arithmetic": lambda x: x * (1.0 - x) / 3.0 + x**2.0 - 0.5,
    "reflected": lambda x: 2.0 + 3.0 * (1.0 - 1.0 / (x + 5.0)),
    "transpose": lambda x: x.T,
    "slice of rows": lambda x: x[1:3],
    "slice of columns": lambda x: x[:, -2:],
    "gathered row": lambda x: x[1],
    "gathered column": lambda x: x[:, 1],
}
COMPARISONS = {
    "less": lambda x: x < 1.0,
    "at most": lambda x: x <= 1.0,
    "greater": lambda x: x > 1.0,
    "at least": lambda x: x >= 1.0,
    "or": lambda x: (x < 0.0) | (x > 1.0),
}


def run(model, **inputs):
    onnx.checker.check_model(model, full_check=True)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


@pytest.mark.parametrize("name", [*EXPRESSIONS, *COMPARISONS])
def test_expressions_are_those_of_numpy(name):
    g, x = GraphBuilder("expression"), np.arange(12, dtype=np.float32).reshape(3, 4) / 4 - 1
    expression = (EXPRESSIONS | COMPARISONS)[name]
    expected = expression(x)
    kind = TensorProto.BOOL if name in COMPARISONS else TensorProto.FLOAT
    model = g.model({"y": (expression(g.input("x", *MATRIX)), (kind, [None] * expected.ndim))})
    [y] = run(model, x=x)
    np.testing.assert_array_equal(y, expected)


def test_only_the_last_axis_of_an_index_may_differ_from_a_colon():
    x = GraphBuilder("index").input("x", *MATRIX)
    with pytest.raises(NotImplementedError):
        _ = x[1, :]


def test_a_value_may_be_several_outputs_and_an_input_may_be_one():
    g = GraphBuilder("outputs")
    x = g.input("x", *VECTOR)
    double = x + x
    model = g.model({"a": (double, VECTOR), "b": (double, VECTOR), "c": (x, VECTOR)})
    assert [node.op_type for node in model.graph.node] == ["Add", "Identity", "Identity"]
    x = np.array([1, 2], np.float32)
    assert [y.tolist() for y in run(model, x=x)] == [[2, 4], [2, 4], [1, 2]]


@pytest.mark.parametrize("positive", [True, False])
def test_branches_read_outer_values_and_return_their_own_or_outer_ones(positive):
    g = GraphBuilder("branches")
    x = g.input("x", *VECTOR)
    y = x * 2.0
    [z] = g.if_else(g.ReduceSum(x, keepdims=0) > 0.0, lambda: [y + 1.0], lambda: [y], [VECTOR])
    x = np.array([1, 2] if positive else [-1, -2], np.float32)
    [z] = run(g.model({"z": (z, VECTOR)}), x=x)
    np.testing.assert_array_equal(z, 2 * x + 1 if positive else 2 * x)


@pytest.mark.parametrize("most", [0, 3, 100])
def test_a_loop_repeats_while_its_condition_holds(most):
    g = GraphBuilder("loop")
    x = g.input("x", *VECTOR)

    def body(value, count):
        doubled = value * 2.0
        return g.ReduceMax(doubled, keepdims=0) < 1000.0, doubled, count + 1

    start = g.ReduceSum(x, keepdims=0) < 1000.0
    state = g.loop(most, start, [x, g.literal(0)], body, [VECTOR, (TensorProto.INT64, [])])
    value, count = run(g.model({"value": (state[0], VECTOR), "count": (state[1], (TensorProto.INT64, []))}),
                       x=np.array([1, 3], np.float32))  # fmt: skip
    turns = min(most, 9)  # 3 * 2^9 exceeds 1000
    assert (value.tolist(), count) == ([2**turns, 3 * 2**turns], turns)


def test_a_constant_has_one_value():
    g = GraphBuilder("constants")
    assert g.constant("half", [0.5]).name == g.constant("half", np.float64([0.5])).name
    for value, dtype in (([0.25], np.float32), ([0.5], np.float64), ([0.5, 0.5], np.float32)):
        with pytest.raises(ValueError, match="'half' must have one value"):
            g.constant("half", value, dtype)


def test_equal_graphs_are_equal_bytes():
    def build():
        g = GraphBuilder("same")
        x = g.input("x", *VECTOR)
        best, index = g.top_k(x, g.Min([2], g.Shape(x)))
        return g.model({"y": (best + 0.5, VECTOR), "index": (index, (TensorProto.INT64, [None]))})

    assert build().SerializeToString() == build().SerializeToString()
