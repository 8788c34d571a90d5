"""New users from what they chose, in ONNX: the row that implicit ALS would give them.

The row p minimises, over the chosen items S with weights c and over all items, as `solvers.ials` has it::

    sum over S of c_i (1 - <p, q_i>)^2 + weight * sum over all i of <p, q_i>^2 + l2 * (n + weight * I)^exponent |p|^2

In the axes of Q'Q, the same for everybody, the last two terms are a diagonal, by whose root columns are scaled.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from cflightning.data.ids import Ids
from cflightning.models.network import FoldedTables
from cflightning.objectives.rankers import Alternating
from cflightning.tasks.ranking import BESIDE, RankingTask
from cflightning_export.graphs.fold_in import fold_in_model, rank_and_ask, read_rows
from cflightning_export.graphs.newton_cg import conjugate_gradients
from cflightning_export.onnx_tools.builder import Nodes

STEPS = 24
"""Of conjugate gradients."""


class Choosing(NamedTuple):
    """Items, and how much a choice says.

    Attributes:
        ids: of the items.
        vectors: float32 [num_items, dim].
        bias: float32 [num_items], the global one included.
        weight: of all items, whether chosen or not, for vectors of `unit`.
        l2: penalty.
        exponent: of the penalty's growth with the number of choices.
        unit: by which vectors are divided first.
        length: of every solution, as far as all weights together are below 1 shorter; None for what the minimum has.
        user_bias: of everybody, which no order depends on.
        stranger: float32 [dim], factors of who has said nothing: added as far as all weights together are below 1, so
            that who only dislikes is no fan; None for zeros, which like all alike.
    """

    ids: Ids
    vectors: NDArray[np.float32]
    bias: NDArray[np.float32]
    weight: float
    l2: float
    exponent: float
    unit: float
    length: float | None
    user_bias: float
    stranger: NDArray[np.float32] | None = None

    def axes(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Eigenvalues of weight * Q'Q, float64 [dim], and axes, float64 [dim, dim]."""
        vectors = self.vectors.astype(np.float64) / self.unit
        values, axes = np.linalg.eigh(self.weight * vectors.T @ vectors)
        return np.maximum(values, 0.0), axes


class Chosen(NamedTuple):
    """Names of values.

    Attributes:
        row: int64 [n], rows of the chosen items; 0 for unknown ones.
        vectors: float [n, dim], theirs.
        column: float [1, dim], by which columns are scaled.
        z: float [n, dim], in axes and scaled; zeros for unknown ones.
        rooted: float [n, dim], the same times the root of each weight.
        weight: float [1, n], of each choice.
        factors: float [1, dim], the solution, and what is added of the stranger.
        longer: float [1, 1], by how much the solution was made longer; "" where it was not.
        added: float [1, dim], of the stranger; "" where there is none.
    """

    row: str
    vectors: str
    column: str
    z: str
    rooted: str
    weight: str
    factors: str
    longer: str
    added: str


def find_choosing(task: RankingTask, tables: FoldedTables, ids: Ids) -> Choosing:
    """How the network that recommends takes new users.

    One that implicit ALS made takes them as its own. Any other is taken as if its item vectors had been made so: they
    are brought to a mean length of 1, as `Ials.start` does, and solutions to the usual length of a user's vector.
    """
    beside = task.objective == "multitask"
    kind = (task.ranking or {}).get("objective", BESIDE) if beside else task.objective
    settings = dict(Alternating.defaults)
    unit, length = 1.0, None
    if kind == "ials":
        given = {} if beside else {"l2": task.l2}
        given |= {name: value for name, value in (task.ranking or {}).items() if name in settings}
        settings |= {name: value for name, value in given.items() if value is not None}
    else:
        unit = _mean_length(tables.item_vectors.double().numpy())
        length = _mean_length(tables.user_vectors.double().numpy())
    weight = settings["weight"]
    return Choosing(
        ids,
        tables.item_vectors.numpy(),
        tables.item_bias.numpy() + np.float32(tables.global_bias),
        min(300 / max(len(ids) + 1, 1), 0.3) if weight is None else float(weight),
        float(settings["l2"]),
        float(settings["exponent"]),
        unit,
        length,
        float(tables.user_bias[1:].mean()),
        tables.user_vectors[0].numpy(),  # the mean user, see `answering`
    )


def _mean_length(rows: NDArray[np.float64]) -> float:
    lengths = np.linalg.norm(rows[1:], axis=1)
    return float(lengths[lengths > 0].mean()) if lengths.any() else 1.0


def fold_in_choice_graph(choosing: Choosing) -> onnx.ModelProto:
    """A new user's chosen items -> the best others, and scores of those that were asked for."""
    g = Nodes()
    chosen = choose(g, choosing, STEPS)
    vector = g("Concat", chosen.factors, g.constant("user_bias", [[choosing.user_bias]]), axis=1)
    dim = choosing.vectors.shape[1]
    rank_and_ask(g, choosing.ids, None, chosen.row, vector, dim)
    return fold_in_model(g, "fold_in_choice", choosing.ids, dim)


def choose(g: Nodes, choosing: Choosing, steps: int) -> Chosen:
    """From raw ids and weights (NaN for 1) to the user's factors; adds the output `known`."""
    row, known = read_rows(g, choosing.ids, "item")
    vectors = g("Gather", g.constant("vectors", choosing.vectors), row)
    g.constant("bias", choosing.bias[None])
    values, axes = choosing.axes()
    count = g("ReduceSum", known, g.integers(0), keepdims=1)
    count = g("Add", count, g.constant("pairs", choosing.weight * len(choosing.ids)))
    ridge = g("Mul", g("Pow", count, g.constant("exponent", choosing.exponent)), g.constant("l2", choosing.l2))
    curvature = g("Add", g.constant("values", values[None]), ridge)
    column = g("Reciprocal", g("Sqrt", curvature))
    z = g("Mul", g("Gemm", vectors, g.constant("axes", axes / choosing.unit)), column)
    z = g("Mul", z, g("Unsqueeze", known, g.integers(1)))
    each = g("Where", g("IsNaN", "rating"), g.constant("one", 1.0), "rating")
    weight = g("Unsqueeze", each, g.integers(0))
    rooted = g("Mul", z, g("Transpose", g("Sqrt", weight)))
    solved = conjugate_gradients(g, rooted, g("Gemm", weight, z), steps)
    factors = g("Gemm", g("Mul", solved, column), g.constant("axes_back", axes / choosing.unit), transB=1)
    longer = added = ""
    said = g("Gemm", weight, g("Unsqueeze", known, g.integers(1)))
    said = g("Min", said, g.constant("one", 1.0))
    if choosing.length is not None:
        squared = g("Gemm", factors, factors, g.constant("tiny", 1e-20), transB=1)
        length = g("Mul", said, g.constant("length", choosing.length))
        longer = g("Div", length, g("Sqrt", squared))
        factors = g("Mul", factors, longer)
    if choosing.stranger is not None:
        missing = g("Sub", g.constant("one", 1.0), said)
        added = g("Mul", missing, g.constant("stranger", choosing.stranger[None]))
        factors = g("Add", factors, added)
    return Chosen(row, vectors, column, z, rooted, weight, factors, longer, added)
