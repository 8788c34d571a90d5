"""`similar`: items to the items of the highest cosine similarity."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch

from cflightning.data.vocabulary import Vocabulary
from cflightning.models.network import ScoringNetwork
from cflightning_export.graphs.base import BundleSource, GraphFamily, TypedGraph, best_items
from cflightning_export.onnx_tools.session import TOLERANCE, GraphSession, ids_of
from cflightning_export.onnx_tools.torch_export import MAX_COMPUTED_NORMS, CosineSimilarity, export_module


def similar_graph(
    network: ScoringNetwork, vocabulary: Vocabulary, max_computed_norms: int = MAX_COMPUTED_NORMS
) -> onnx.ModelProto:
    """Build the graph `similar` of a network's item vectors."""
    g = TypedGraph("similar", items=vocabulary.items)
    item = g.items.index(g["item"])
    itself = g.Range(0, g.Squeeze(item.shape()), 1)
    cosines = export_module(CosineSimilarity(network, max_computed_norms), ["item_index"], "cosines")
    # An item is excluded from its own similar items.
    every = g.splice(cosines, {"item_index": item})
    similar, similarity = best_items(g.items, every, g["k"], itself, item)
    return g.finish(similar=similar, similarity=similarity, known=item > 0)


def build(source: BundleSource) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Yield `similar`."""
    yield "similar", similar_graph(source.networks.recommend, source.vocabulary)


def verify(folder: Path, source: BundleSource) -> None:
    """Compare the similar items of many, first, last and no items with those of torch."""
    network, items, rng = source.networks.recommend, source.vocabulary.items, np.random.default_rng(0)
    graph, cosines = GraphSession(folder, "similar"), CosineSimilarity(network)
    for case, item, k in (
        ("many", rng.integers(1, items.num_embeddings, 20), 10),
        ("first", np.array([1]), 1),
        ("last, whole catalogue", np.array([items.num_embeddings - 1]), items.num_embeddings + 5),
        ("zero", np.array([], np.int64), 10),
    ):
        with torch.no_grad():
            values = cosines(torch.from_numpy(item))
        values[torch.arange(len(item)), torch.from_numpy(item)] = -torch.inf
        values[:, 0] = -torch.inf
        expected = values.topk(min(k, items.num_embeddings - 1), dim=-1).values.numpy()
        answer = graph.run(case, item=ids_of(items, item), k=np.array([k]))
        graph.check_close(case, answer["similarity"], expected, TOLERANCE)
        index = torch.from_numpy(items.indices(answer["similar"].reshape(-1)).reshape(expected.shape))
        graph.check_close(f"{case} (items)", values.gather(1, index).numpy(), answer["similarity"], TOLERANCE)
        graph.check_equal(case, "known flags", answer["known"], np.ones(len(item), bool))


GRAPHS = GraphFamily(build, verify)
