"""The three graphs of a bundle: a core that torch exports from the network, between id encoding and top-k.

The core is exported from the network itself, so what is served is what was trained; only what torch has no words for
(raw ids, dynamic k) is added by hand around it.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from cflightning.data.ids import Ids
from cflightning.data.vocabulary import Vocabulary
from cflightning.models.network import RatingNetwork, RatingScale

if TYPE_CHECKING:
    from collections.abc import Iterator

OPSET, ML_OPSET, IR_VERSION = 18, 4, 10

Value = tuple[str, int, list[Any]]
"""Name, element type and lengths of a graph input or output."""


class Pairs(nn.Module):
    """Scores of pairs: rating units, or none where the network predicts choices."""

    def __init__(self, network: RatingNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """int64 [n] rows twice -> float32 [n]."""
        scores: Tensor = self.network(user, item)
        return scores


class Catalogue(nn.Module):
    """Logits of users with every item."""

    def __init__(self, network: RatingNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, user: Tensor) -> Tensor:
        """int64 [n] rows -> float32 [n, num_items]."""
        return self.network.catalogue(user)


class Cosines(nn.Module):
    """Cosines of items with every item; 0 where a vector is zero."""

    inverse_norm: Tensor

    def __init__(self, network: RatingNetwork) -> None:
        super().__init__()
        self.network = network
        norm = network.item_vectors().detach().norm(dim=-1)
        # Inverse norms beside the one table, not a second, normalised table.
        self.register_buffer("inverse_norm", torch.where(norm > 0, 1 / norm, torch.zeros(())))

    def forward(self, item: Tensor) -> Tensor:
        """int64 [n] rows -> float32 [n, num_items]."""
        vectors = self.network.item_vectors()
        dot = nn.functional.linear(nn.functional.embedding(item, vectors), vectors)
        return (dot * self.inverse_norm[item].unsqueeze(1) * self.inverse_norm).clamp(-1, 1)


def score_graph(network: RatingNetwork, vocabulary: Vocabulary) -> onnx.ModelProto:
    """(user, item) ids -> `score` float32 [n], `known` bool [n, 2]."""
    # Two different example tensors: given one object twice, the exporter wires both inputs to the first.
    core = _core(Pairs(network), {"user_row": torch.tensor([1, 0, 1]), "item_row": torch.tensor([0, 1, 1])}, "score")
    before = [
        *_encode("user", "user_row", vocabulary.users),
        *_encode("item", "item_row", vocabulary.items),
        helper.make_node("Unsqueeze", ["user_row", "last_axis"], ["user_column"]),
        helper.make_node("Unsqueeze", ["item_row", "last_axis"], ["item_column"]),
        helper.make_node("Concat", ["user_column", "item_column"], ["row_pairs"], axis=1),
        helper.make_node("Greater", ["row_pairs", "unknown_row"], ["known"]),
    ]
    constants = {"last_axis": np.array([-1], np.int64), "unknown_row": np.array(0, np.int64)}
    inputs: list[Value] = [("user", _kind(vocabulary.users), ["n"]), ("item", _kind(vocabulary.items), ["n"])]
    outputs: list[Value] = [("score", TensorProto.FLOAT, ["n"]), ("known", TensorProto.BOOL, ["n", 2])]
    return _assemble("score", core, before, [], constants, inputs, outputs)


def recommend_graph(network: RatingNetwork, vocabulary: Vocabulary) -> onnx.ModelProto:
    """User ids, k, exclusions -> `item` ids [n, k'], `score` float32 [n, k'], `known` bool [n]."""
    core = _core(Catalogue(network), {"user_row": torch.tensor([1, 0, 1])}, "value")
    return best_items("recommend", core, network.scale, vocabulary)


def best_items(
    name: str, core: onnx.ModelProto, scale: RatingScale, vocabulary: Vocabulary, *, filtered: bool = False
) -> onnx.ModelProto:
    """The graph of `recommend_graph` around the core of a catalogue.

    Args:
        name: of the graph.
        core: rows of users -> logits of every item.
        scale: from logits to scores.
        vocabulary: ids of the rows.
        filtered: whether there is an input `allowed` bool [num_items - 1], in the order of the catalogue: only these.
    """
    before = [
        *_encode("user", "user_row", vocabulary.users),
        *_encode("exclude_item", "exclude_row", vocabulary.items),
        helper.make_node("Greater", ["user_row", "unknown_row"], ["known"]),
    ]
    after, constants = _top_k(vocabulary.items, "exclude_user", "exclude_row", "item", "top_value")
    if filtered:  # between the mask of single pairs and the best k: what no user may have
        at = next(number for number, node in enumerate(after) if node.output[0] == "known_items")
        after[at].output[0] = "every_item"
        after.insert(at + 1, helper.make_node("Where", ["allowed", "every_item", "minus_infinity"], ["known_items"]))
    scaling, scale_constants = _rating_scale(scale, "top_value", "scaled")
    after += [
        *scaling,
        helper.make_node("IsInf", ["top_value"], ["filler"], detect_positive=0),
        helper.make_node("Where", ["filler", "minus_infinity", "scaled"], ["score"]),
    ]
    inputs: list[Value] = [
        ("user", _kind(vocabulary.users), ["n"]),
        ("k", TensorProto.INT64, [1]),
        ("exclude_user", TensorProto.INT64, ["m"]),
        ("exclude_item", _kind(vocabulary.items), ["m"]),
    ]
    if filtered:
        inputs.append(("allowed", TensorProto.BOOL, [len(vocabulary.items)]))
    outputs: list[Value] = [
        ("item", _kind(vocabulary.items), ["n", "count"]),
        ("score", TensorProto.FLOAT, ["n", "count"]),
        ("known", TensorProto.BOOL, ["n"]),
    ]
    return _assemble(name, core, before, after, constants | scale_constants, inputs, outputs)


def similar_graph(network: RatingNetwork, vocabulary: Vocabulary) -> onnx.ModelProto:
    """Item ids, k -> `similar` ids [n, k'], `similarity` float32 [n, k'], `known` bool [n]."""
    core = _core(Cosines(network), {"item_row": torch.tensor([1, 0, 1])}, "value")
    before = [
        *_encode("item", "item_row", vocabulary.items),
        helper.make_node("Greater", ["item_row", "unknown_row"], ["known"]),
        helper.make_node("Shape", ["item_row"], ["shape"]),
        helper.make_node("Squeeze", ["shape"], ["length"]),
        helper.make_node("Range", ["zero", "length", "one"], ["itself"]),
    ]
    # An item is left out of its own list, as an exclusion like any other.
    after, constants = _top_k(vocabulary.items, "itself", "item_row", "similar", "similarity")
    constants |= {"zero": np.array(0, np.int64), "one": np.array(1, np.int64)}
    inputs: list[Value] = [("item", _kind(vocabulary.items), ["n"]), ("k", TensorProto.INT64, [1])]
    outputs: list[Value] = [
        ("similar", _kind(vocabulary.items), ["n", "count"]),
        ("similarity", TensorProto.FLOAT, ["n", "count"]),
        ("known", TensorProto.BOOL, ["n"]),
    ]
    return _assemble("similar", core, before, after, constants, inputs, outputs)


def _core(module: nn.Module, example: dict[str, Tensor], output: str) -> onnx.ModelProto:
    """What torch exports of a module over rows; every length is dynamic, 0 and 1 included."""
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module.eval(),
            tuple(example.values()),
            dynamo=True,
            dynamic_shapes=tuple({0: torch.export.Dim.DYNAMIC} for _ in example),
            opset_version=OPSET,
            input_names=list(example),
            output_names=[output],
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    return model


def _encode(source: str, target: str, ids: Ids) -> list[Any]:
    """Raw ids to rows; unknown ids to row 0."""
    rows = list(range(1, ids.num_rows))
    keys = {f"keys_{'int64s' if ids.kind == 'int64' else 'strings'}": ids.values.tolist()}
    return [
        helper.make_node(
            "LabelEncoder", [source], [target], domain="ai.onnx.ml", values_int64s=rows, default_int64=0, **keys
        )
    ]


def _top_k(ids: Ids, left: str, row: str, items: str, values: str) -> tuple[list[Any], dict[str, np.ndarray]]:
    """From `value` [n, num_items] to the best k: ids and values, without the unknown row and the pairs (left, row)."""
    nodes = [
        helper.make_node("Unsqueeze", [left, "last_axis"], ["left_column"]),
        helper.make_node("Unsqueeze", [row, "last_axis"], ["row_column"]),
        helper.make_node("Concat", ["left_column", "row_column"], ["excluded"], axis=1),
        helper.make_node("Shape", [row], ["how_many"]),
        helper.make_node("Expand", ["minus_infinity", "how_many"], ["updates"]),
        helper.make_node("ScatterND", ["value", "excluded", "updates"], ["masked"]),
        helper.make_node("Slice", ["masked", "first_item", "end", "last_axis_of_two"], ["known_items"]),
        helper.make_node("Min", ["k", "catalogue"], ["count"]),
        helper.make_node("TopK", ["known_items", "count"], [values, "index"], axis=-1, largest=1, sorted=1),
        helper.make_node("Gather", ["item_ids", "index"], [items]),
    ]
    constants: dict[str, np.ndarray] = {
        "last_axis": np.array([-1], np.int64),
        "last_axis_of_two": np.array([1], np.int64),
        "minus_infinity": np.array(-np.inf, np.float32),
        "first_item": np.array([1], np.int64),  # row 0 is the unknown
        "end": np.array([np.iinfo(np.int64).max], np.int64),
        "catalogue": np.array([len(ids)], np.int64),
        "unknown_row": np.array(0, np.int64),
        "item_ids": ids.values,
    }
    return nodes, constants


def _rating_scale(scale: RatingScale, source: str, target: str) -> tuple[list[Any], dict[str, np.ndarray]]:
    """`RatingScale` in evaluation mode, on the k chosen logits only: it is monotonic, so the order is the same."""
    nodes, constants, name = [], {}, source
    if scale.sigmoid:
        nodes += [
            helper.make_node("Sigmoid", [name], ["share"]),
            helper.make_node("Mul", ["share", "width"], ["widened"]),
            helper.make_node("Add", ["widened", "low"], ["unclipped"]),
        ]
        constants = {"width": np.array(scale.high - scale.low, np.float32), "low": np.array(scale.low, np.float32)}
        name = "unclipped"
    if scale.rating_range is None:
        return [*nodes, helper.make_node("Identity", [name], [target])], constants
    low, high = scale.rating_range
    constants |= {"lowest": np.array(low, np.float32), "highest": np.array(high, np.float32)}
    return [*nodes, helper.make_node("Clip", [name, "lowest", "highest"], [target])], constants


def _assemble(
    name: str,
    core: onnx.ModelProto,
    before: Sequence[Any],
    after: Sequence[Any],
    constants: dict[str, np.ndarray],
    inputs: Sequence[Value],
    outputs: Sequence[Value],
) -> onnx.ModelProto:
    """One model of the nodes before, the core's and those after; unused constants are dropped."""
    nodes = [*before, *core.graph.node, *after]
    used = {source for node in _all_nodes(nodes) for source in node.input}
    initializers = list(core.graph.initializer)
    initializers += [_constant(key, value) for key, value in constants.items() if key in used]
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        initializers,
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="cflightning")
    # Value descriptions of the exporter carry its own symbols for lengths; runtimes infer their own.
    del model.graph.value_info[:]
    return model


def _all_nodes(nodes: Iterable[Any]) -> Iterator[Any]:
    """Nodes and those inside their branches."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            yield from _all_nodes(attribute.g.node)


def _constant(name: str, value: np.ndarray) -> TensorProto:
    if value.dtype == object:
        return helper.make_tensor(name, TensorProto.STRING, value.shape, [text.encode() for text in value.tolist()])
    return numpy_helper.from_array(value, name)


def _kind(ids: Ids) -> int:
    return TensorProto.INT64 if ids.kind == "int64" else TensorProto.STRING


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's chatter about itself away from users."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")  # "torchvision is not installed"
    level = registration.level
    registration.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning)  # torch's own use of its deprecated pytree names
            warnings.filterwarnings("ignore", category=DeprecationWarning)  # onnxscript's, likewise
            warnings.filterwarnings("ignore", message=".*in training mode.*")  # asks the wrapper, which is in eval
            yield
    finally:
        registration.setLevel(level)
