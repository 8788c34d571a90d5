"""The three graphs of every bundle: a core that torch exports from the network, between id encoding and top-k."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from cflightning.data.ids import Ids
from cflightning.data.vocabulary import Vocabulary
from cflightning.models.network import RatingNetwork, RatingScale
from cflightning_export.onnx_tools.builder import END, Nodes, Value, element
from cflightning_export.onnx_tools.torch_export import Catalogue, Cosines, Pairs, export_core


def score_graph(network: RatingNetwork, vocabulary: Vocabulary) -> onnx.ModelProto:
    """(user, item) ids -> `score` float32 [n], `known` bool [n, 2]."""
    g = Nodes()
    user, item = g.rows(vocabulary.users, "user", to="user_row"), g.rows(vocabulary.items, "item", to="item_row")
    columns = [g("Unsqueeze", row, g.integers(-1)) for row in (user, item)]
    g.known(g("Concat", *columns, axis=1))
    g.core(export_core(Pairs(network), [user, item], "score"))
    inputs: list[Value] = [("user", element(vocabulary.users), ["n"]), ("item", element(vocabulary.items), ["n"])]
    return g.model("score", inputs, [("score", TensorProto.FLOAT, ["n"]), ("known", TensorProto.BOOL, ["n", 2])])


def catalogue_core(network: RatingNetwork) -> onnx.ModelProto:
    """From `user_row` int64 [n] to `value` float32 [n, num_items], the logits of every item."""
    return export_core(Catalogue(network), ["user_row"], "value")


def recommend_signature(vocabulary: Vocabulary, *, filtered: bool) -> tuple[list[Value], list[Value]]:
    """Inputs and outputs of `recommend`, or `filtered`, as serve/BUNDLE.md has them."""
    user, item = element(vocabulary.users), element(vocabulary.items)
    inputs: list[Value] = [
        ("user", user, ["n"]),
        ("k", TensorProto.INT64, [1]),
        ("exclude_user", TensorProto.INT64, ["m"]),
        ("exclude_item", item, ["m"]),
    ]
    if filtered:
        inputs.append(("allowed", TensorProto.BOOL, [len(vocabulary.items)]))
    outputs: list[Value] = [
        ("item", item, ["n", "count"]),
        ("score", TensorProto.FLOAT, ["n", "count"]),
        ("known", TensorProto.BOOL, ["n"]),
    ]
    return inputs, outputs


def best_items(
    name: str, core: onnx.ModelProto, scale: RatingScale, vocabulary: Vocabulary, *, filtered: bool = False
) -> onnx.ModelProto:
    """User ids, k, exclusions -> `item` ids [n, k'], `score` float32 [n, k'], `known` bool [n].

    Args:
        name: of the graph.
        core: of `catalogue_core`.
        scale: from logits to scores.
        vocabulary: ids of the rows.
        filtered: whether there is an input `allowed` bool [num_items - 1], in the order of the catalogue: only these.
    """
    g = Nodes()
    user = g.rows(vocabulary.users, "user", to="user_row")
    excluded = g.rows(vocabulary.items, "exclude_item")
    g.known(user)
    g.core(core)
    best = _top_k(g, vocabulary.items, "exclude_user", excluded, to="item", allowed="allowed" if filtered else "")
    g.scaled(scale, best, to="score")
    return g.model(name, *recommend_signature(vocabulary, filtered=filtered))


def similar_graph(network: RatingNetwork, vocabulary: Vocabulary) -> onnx.ModelProto:
    """Item ids, k -> `similar` ids [n, k'], `similarity` float32 [n, k'], `known` bool [n]."""
    g = Nodes()
    item = g.rows(vocabulary.items, "item", to="item_row")
    g.known(item)
    length = g("Squeeze", g("Shape", item))
    itself = g("Range", g.integer(0), length, g.integer(1))
    g.core(export_core(Cosines(network), [item], "value"))
    # An item is left out of its own list, as an exclusion like any other.
    _top_k(g, vocabulary.items, itself, item, to="similar", values="similarity")
    kind = element(vocabulary.items)
    outputs: list[Value] = [
        ("similar", kind, ["n", "count"]),
        ("similarity", TensorProto.FLOAT, ["n", "count"]),
        ("known", TensorProto.BOOL, ["n"]),
    ]
    return g.model("similar", [("item", kind, ["n"]), ("k", TensorProto.INT64, [1])], outputs)


def _top_k(g: Nodes, ids: Ids, left: str, row: str, *, to: str, values: str | None = None, allowed: str = "") -> str:
    """From `value` [n, num_items] to the best k, without the unknown row and the pairs (left, row).

    Args:
        g: a graph with the inputs `value` and `k`.
        ids: of the items.
        left: int64 [m], places along n.
        row: int64 [m], of items.
        to: name for the ids, [n, k'].
        values: name for the values; one is made up without.
        allowed: bool [num_items - 1], only these; "" for all.

    Returns:
        The best values, float32 [n, k'].
    """
    nothing = g.constant("nothing", -np.inf)
    excluded = g("Concat", g("Unsqueeze", left, g.integers(-1)), g("Unsqueeze", row, g.integers(-1)), axis=1)
    masked = g("ScatterND", "value", excluded, g("Expand", nothing, g("Shape", row)))
    known = g.slice(masked, g.integers(1), g.integers(END), axis=1)
    if allowed:
        known = g("Where", allowed, known, nothing)
    best = g("TopK", known, g("Min", "k", g.integers(len(ids))), to=values)
    g.raw(ids, f"{best}_index", to=to)
    return best
