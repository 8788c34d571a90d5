"""Graphs for lists as they are used in life: a part of the catalogue, all users at once, factors of items, users."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper

from cflightning.data.vocabulary import Vocabulary
from cflightning.models.network import RatingNetwork
from cflightning_export.graphs import Catalogue, Value, _assemble, _core, _encode, _kind, _rating_scale, best_items


def list_graphs(network: RatingNetwork, vocabulary: Vocabulary) -> dict[str, onnx.ModelProto]:
    """Question -> graph, of the network that recommends: `filtered`, `scores`, `factors` and `users`."""
    core = _core(Catalogue(network), {"user_row": torch.tensor([1, 0, 1])}, "value")  # once, it takes a second
    return {
        "filtered": filtered_graph(core, network, vocabulary),
        "scores": scores_graph(core, network, vocabulary),
        "factors": factors_graph(network, vocabulary),
        "users": users_graph(vocabulary),
    }


def filtered_graph(core: onnx.ModelProto, network: RatingNetwork, vocabulary: Vocabulary) -> onnx.ModelProto:
    """As `recommend`, and `allowed` bool [num_items - 1], in the order of the catalogue: only these."""
    return best_items("filtered", core, network.scale, vocabulary, filtered=True)


def scores_graph(core: onnx.ModelProto, network: RatingNetwork, vocabulary: Vocabulary) -> onnx.ModelProto:
    """User ids -> `order` (what sorts them) and `score` float32 [n, num_items - 1] of every item, `known` bool [n]."""
    before = [
        *_encode("user", "user_row", vocabulary.users),
        helper.make_node("Greater", ["user_row", "unknown_row"], ["known"]),
    ]
    scaling, constants = _rating_scale(network.scale, "order", "score")
    after = [helper.make_node("Slice", ["value", "first_item", "end", "axis"], ["order"]), *scaling]
    constants |= {
        "unknown_row": np.array(0, np.int64),
        "first_item": np.array([1], np.int64),
        "end": np.array([np.iinfo(np.int64).max], np.int64),
        "axis": np.array([1], np.int64),
    }
    items = len(vocabulary.items)
    inputs: list[Value] = [("user", _kind(vocabulary.users), ["n"])]
    outputs: list[Value] = [
        ("order", TensorProto.FLOAT, ["n", items]),
        ("score", TensorProto.FLOAT, ["n", items]),
        ("known", TensorProto.BOOL, ["n"]),
    ]
    return _assemble("scores", core, before, after, constants, inputs, outputs)


def factors_graph(network: RatingNetwork, vocabulary: Vocabulary) -> onnx.ModelProto:
    """Item ids -> `vector` float32 [n, dim], `bias` float32 [n], `known` bool [n]."""
    folded = network.fold()
    vectors = (network.item_vectors() if folded is None else folded.item_vectors).detach().numpy()
    bias = np.zeros(len(vectors), np.float32) if folded is None else folded.item_bias.detach().reshape(-1).numpy()
    nodes = [
        *_encode("item", "row", vocabulary.items),
        helper.make_node("Gather", ["item_vectors", "row"], ["vector"]),
        helper.make_node("Gather", ["item_bias", "row"], ["bias"]),
        helper.make_node("Greater", ["row", "unknown_row"], ["known"]),
    ]
    constants = {"item_vectors": vectors, "item_bias": bias, "unknown_row": np.array(0, np.int64)}
    inputs: list[Value] = [("item", _kind(vocabulary.items), ["n"])]
    outputs: list[Value] = [
        ("vector", TensorProto.FLOAT, ["n", vectors.shape[1]]),
        ("bias", TensorProto.FLOAT, ["n"]),
        ("known", TensorProto.BOOL, ["n"]),
    ]
    return _assemble("factors", onnx.ModelProto(), nodes, [], constants, inputs, outputs)


def users_graph(vocabulary: Vocabulary) -> onnx.ModelProto:
    """From and to which place -> `user` ids [n] of the known users there, in the order of their rows."""
    nodes = [helper.make_node("Slice", ["user_ids", "begin", "end"], ["user"])]
    inputs: list[Value] = [("begin", TensorProto.INT64, [1]), ("end", TensorProto.INT64, [1])]
    outputs: list[Value] = [("user", _kind(vocabulary.users), ["n"])]
    return _assemble("users", onnx.ModelProto(), nodes, [], {"user_ids": vocabulary.users.values}, inputs, outputs)
