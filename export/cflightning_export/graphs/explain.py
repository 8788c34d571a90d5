"""The graph of reasons: how much each rated item adds to the logit of another, exactly.

A folded-in row is a sum over its ratings, ``y = start + A^-1 sum_j v_j z_j`` (the last Newton step's hat matrix), so

    logit_t = base_t + sum_j <z_t, A^-1 z_j> v_j + rest_t

with the base what a new user without ratings has (of choices, as far as all weights together are below 1), and what is
left of rounding as the rest. A known user's rest is also what the trained row knows beyond the folded-in one.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from cflightning.data.ids import Ids
from cflightning.models.network import RatingScale
from cflightning_export.fold_in.spec import Folding
from cflightning_export.graphs.fold_in import read_given
from cflightning_export.graphs.fold_in_implicit import Choosing, choose
from cflightning_export.graphs.newton_cg import CAREFUL, conjugate_gradients, newton
from cflightning_export.onnx_tools.builder import Nodes, Value, element

STEPS = 24
"""Of conjugate gradients, for each target."""


def explain_graph(
    folding: Folding, users: Ids, user_vectors: NDArray[np.float32], user_bias: NDArray[np.float32]
) -> onnx.ModelProto:
    """Rated items and targets -> contributions, for a network of ratings."""
    g = Nodes()
    given = read_given(g, folding, "item", leaning=True)
    link, dim = folding.scale.sigmoid, folding.vectors.shape[1]
    found = newton(g, given.z, given.bias, given.target, given.start, sigmoid=link, inner=CAREFUL[link], weigh=True)
    target = g.rows(folding.ids, "target")
    vectors, bias = _targets(g, target)
    z = g("Gemm", vectors, "whiten", "whiten_bias")
    hat = g("Gemm", conjugate_gradients(g, found.scaled, z, STEPS, many=True), given.z, transB=1)
    each = g("Mul", hat, found.weight)
    if given.leaning:
        each = g("Add", each, g("Gemm", z, given.leaning, transB=1))
    base = g("Add", bias, _column(g, g("Gemm", z, g.constant("start", folding.start), transB=1)))
    vector = g("Gemm", found.row, "colour", transB=1)
    _finish(g, users, user_vectors, user_bias, dim, given.vectors, vectors, bias, vector, each, base, folding.scale)
    return _model(g, folding.ids, users)


def explain_choice_graph(
    choosing: Choosing, users: Ids, user_vectors: NDArray[np.float32], user_bias: NDArray[np.float32]
) -> onnx.ModelProto:
    """Chosen items and targets -> contributions, for a network of choices."""
    g = Nodes()
    chosen = choose(g, choosing, STEPS)
    dim = choosing.vectors.shape[1]
    vectors, bias = _targets(g, g.rows(choosing.ids, "target"))
    z = g("Mul", g("Gemm", vectors, "axes"), chosen.column)
    hat = g("Gemm", conjugate_gradients(g, chosen.rooted, z, STEPS, many=True), chosen.z, transB=1)
    each = g("Mul", hat, chosen.weight)
    if chosen.longer:
        each = g("Mul", each, chosen.longer)
    base = g("Add", bias, g.constant("everybody", choosing.user_bias))
    if chosen.added:
        base = g("Add", base, _column(g, g("Gemm", vectors, chosen.added, transB=1)))
    vector = g("Concat", chosen.factors, g.constant("user_bias", [[choosing.user_bias]]), axis=1)
    _finish(g, users, user_vectors, user_bias, dim, chosen.vectors, vectors, bias, vector, each, base, None)
    return _model(g, choosing.ids, users)


def _targets(g: Nodes, row: str) -> tuple[str, str]:
    """Vectors, float [t, dim], and biases, float [t], of rows."""
    return g("Gather", "vectors", row), _column(g, g("Gather", "bias", row, axis=1))


def _column(g: Nodes, values: str) -> str:
    return g("Reshape", values, g.integers(-1))


def _finish(
    g: Nodes,
    users: Ids,
    user_vectors: NDArray[np.float32],
    user_bias: NDArray[np.float32],
    dim: int,
    given: str,
    targets: str,
    bias: str,
    folded: str,
    each: str,
    base: str,
    scale: RatingScale | None,
) -> None:
    """Adds the outputs: logits of the folded-in row, or of the trained one where a user is named."""
    row = g.rows(users, "user")
    factors = g("Gather", g.constant("user_vectors", user_vectors), row)
    biases = g("Gather", g.constant("user_biases", user_bias[:, None]), row)
    trained = g("Concat", factors, biases, axis=1)
    answering = g("Gather", g("Concat", folded, trained, axis=0), g.integers(-1))
    ones = g("Expand", g.constant("ones", [[1.0]]), g("Concat", g("Shape", bias), g.integers(1), axis=0))
    logit = g("Add", _column(g, g("Gemm", answering, g("Concat", targets, ones, axis=1), transB=1)), bias, to="logit")
    g("Identity", each, to="contribution")
    g("Identity", base, to="base")
    explained = g("Add", base, g("ReduceSum", each, g.integers(1), keepdims=0))
    g("Sub", logit, explained, to="rest")
    g("Identity", logit if scale is None else g.scaled(scale, logit), to="score")
    products = g("Gemm", targets, given, transB=1)
    lengths = [g("ReduceL2", side, g.integers(1), keepdims=1) for side in (targets, given)]
    both = g("Gemm", lengths[0], lengths[1], g.constant("tiny", 1e-20), transB=1)
    cosine = g("Div", products, both)
    g("Clip", cosine, g.constant("minus_one", -1.0), g.constant("one", 1.0), to="similarity")


def _model(g: Nodes, items: Ids, users: Ids) -> onnx.ModelProto:
    kind, number = element(items), TensorProto.FLOAT
    inputs: list[Value] = [
        ("item", kind, ["n"]),
        ("rating", number, ["n"]),
        ("target", kind, ["t"]),
        ("user", element(users), ["u"]),
    ]
    outputs: list[Value] = [
        ("contribution", number, ["t", "n"]),
        ("base", number, ["t"]),
        ("rest", number, ["t"]),
        ("logit", number, ["t"]),
        ("score", number, ["t"]),
        ("similarity", number, ["t", "n"]),
        ("known", TensorProto.BOOL, ["n"]),
    ]
    return g.model("explain", inputs, outputs)
