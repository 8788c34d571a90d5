"""Graphs for lists: the best items, all of the catalogue or a part, scores of many users, factors of items, users."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto

from cflightning.data.vocabulary import Vocabulary
from cflightning.models.network import RatingNetwork
from cflightning_export.graphs.base import catalogue_core
from cflightning_export.graphs.two_pass import best_graphs
from cflightning_export.onnx_tools.builder import END, Nodes, Value, element


def list_graphs(network: RatingNetwork, vocabulary: Vocabulary) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Questions and graphs, of the network that recommends: `recommend`, `filtered`, `scores`, `factors` and `users`.

    Each is made when it is asked for: all together hold the tables five times.
    """
    core = catalogue_core(network)  # once, it takes a second
    yield from best_graphs(network, vocabulary, core)
    yield "scores", scores_graph(core, network, vocabulary)
    yield "factors", factors_graph(network, vocabulary)
    yield "users", users_graph(vocabulary)


def scores_graph(core: onnx.ModelProto, network: RatingNetwork, vocabulary: Vocabulary) -> onnx.ModelProto:
    """User ids -> `order` (what sorts them) and `score` float32 [n, num_items - 1] of every item, `known` bool [n]."""
    g = Nodes()
    g.known(g.rows(vocabulary.users, "user", to="user_row"))
    g.core(core)
    order = g.slice("value", g.integers(1), g.integers(END), axis=1, to="order")
    g.scaled(network.scale, order, to="score", fillers=False)
    items = len(vocabulary.items)
    outputs: list[Value] = [
        ("order", TensorProto.FLOAT, ["n", items]),
        ("score", TensorProto.FLOAT, ["n", items]),
        ("known", TensorProto.BOOL, ["n"]),
    ]
    return g.model("scores", [("user", element(vocabulary.users), ["n"])], outputs)


def factors_graph(network: RatingNetwork, vocabulary: Vocabulary) -> onnx.ModelProto:
    """Item ids -> `vector` float32 [n, dim], `bias` float32 [n], `known` bool [n]."""
    folded = network.fold()
    vectors = (network.item_vectors() if folded is None else folded.item_vectors).detach().numpy()
    bias = np.zeros(len(vectors), np.float32) if folded is None else folded.item_bias.detach().reshape(-1).numpy()
    g = Nodes()
    row = g.rows(vocabulary.items, "item")
    g("Gather", g.constant("item_vectors", vectors), row, to="vector")
    g("Gather", g.constant("item_bias", bias), row, to="bias")
    g.known(row)
    outputs: list[Value] = [
        ("vector", TensorProto.FLOAT, ["n", vectors.shape[1]]),
        ("bias", TensorProto.FLOAT, ["n"]),
        ("known", TensorProto.BOOL, ["n"]),
    ]
    return g.model("factors", [("item", element(vocabulary.items), ["n"])], outputs)


def users_graph(vocabulary: Vocabulary) -> onnx.ModelProto:
    """From and to which place -> `user` ids [n] of the known users there, in the order of their rows."""
    g = Nodes()
    ids = vocabulary.users
    g.raw(ids, "begin", "end", to="user", op="Slice")
    places: list[Value] = [("begin", TensorProto.INT64, [1]), ("end", TensorProto.INT64, [1])]
    return g.model("users", places, [("user", element(ids), ["n"])])
