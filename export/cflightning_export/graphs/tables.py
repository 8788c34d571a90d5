"""`factors` and `users`: the item vectors, and the ids of the known users."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx

from cflightning.data.vocabulary import Vocabulary
from cflightning.models.network import ScoringNetwork
from cflightning_export.graphs.base import BundleSource, GraphFamily, TypedGraph
from cflightning_export.onnx_tools.session import GraphSession, ids_of


def factors_graph(network: ScoringNetwork, vocabulary: Vocabulary) -> onnx.ModelProto:
    """Build the graph `factors` of the network that recommends."""
    vectors, bias = _item_tables(network)
    g = TypedGraph("factors", items=vocabulary.items, dim=vectors.shape[1])
    item = g.items.index(g["item"])
    return g.finish(
        vector=g.constant("item_vectors", vectors)[item], bias=g.constant("item_bias", bias)[item], known=item > 0
    )


def users_graph(vocabulary: Vocabulary) -> onnx.ModelProto:
    """Build the graph `users`."""
    g = TypedGraph("users", users=vocabulary.users)
    return g.finish(user=g.users.between(g["begin"], g["end"]))


def build(source: BundleSource) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Yield `factors` and `users`."""
    yield "factors", factors_graph(source.networks.recommend, source.vocabulary)
    yield "users", users_graph(source.vocabulary)


def verify(folder: Path, source: BundleSource) -> None:
    """Compare item vectors with the network's, and user ids with the vocabulary's."""
    items, users = source.vocabulary.items, source.vocabulary.users.values
    index = np.append(np.random.default_rng(1).integers(0, items.num_embeddings, 50), [0, items.num_embeddings - 1])
    vectors, bias = _item_tables(source.networks.recommend)
    graph = GraphSession(folder, "factors")
    answer = graph.run("many", item=ids_of(items, index))
    graph.check_close("vectors", answer["vector"], vectors[index], 0.0)
    graph.check_close("biases", answer["bias"], bias[index], 0.0)
    graph.check_equal("many", "known flags", answer["known"], index > 0)
    graph, half = GraphSession(folder, "users"), len(users) // 2
    for begin, end in ((0, half), (half, len(users) + 5), (0, 0)):
        answer = graph.run(f"{begin} to {end}", begin=np.array([begin]), end=np.array([end]))
        graph.check_equal(f"{begin} to {end}", "ids", answer["user"], users[begin:end])


def _item_tables(network: ScoringNetwork) -> tuple[np.ndarray, np.ndarray]:
    """Return item vectors, float32 [1 + items, dim], and biases, float32 [1 + items]; zeros for a network without."""
    folded = network.tables()
    if folded is None:
        vectors = network.item_vectors().detach().numpy()
        return vectors, np.zeros(len(vectors), np.float32)
    return folded.item_vectors.detach().numpy(), folded.item_bias.detach().reshape(-1).numpy()


GRAPHS = GraphFamily(build, verify)
