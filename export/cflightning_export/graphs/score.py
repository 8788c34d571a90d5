"""`score`: (user, item) pairs to scores, computed by the graph that torch exports of the network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch

from cflightning.data.vocabulary import Vocabulary
from cflightning.models.network import ScoringNetwork
from cflightning_export.graphs.base import BundleSource, GraphFamily, TypedGraph
from cflightning_export.onnx_tools.session import GraphSession, ids_of, score_tolerance
from cflightning_export.onnx_tools.torch_export import PairScores, export_module


def score_graph(network: ScoringNetwork, vocabulary: Vocabulary) -> onnx.ModelProto:
    """Build the graph `score`."""
    g = TypedGraph("score", users=vocabulary.users, items=vocabulary.items)
    user, item = g.users.index(g["user"]), g.items.index(g["item"])
    known = g.Concat(user.column(), item.column(), axis=1) > 0
    scores = export_module(PairScores(network), ["user_index", "item_index"], "score")
    return g.finish(score=g.splice(scores, {"user_index": user, "item_index": item}), known=known)


def build(source: BundleSource) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Yield `score`."""
    yield "score", score_graph(source.networks.score, source.vocabulary)


def verify(folder: Path, source: BundleSource) -> None:
    """Compare scores of many, first, last, unknown and no pairs with those of torch."""
    network, vocabulary, rng = source.networks.score, source.vocabulary, np.random.default_rng(0)
    users, items = vocabulary.users.num_embeddings, vocabulary.items.num_embeddings
    graph = GraphSession(folder, "score")
    # Users and items differ in most cases, or a graph that reads one input twice would pass.
    for case, user, item in (
        ("many", rng.integers(0, users, 1000), rng.integers(0, items, 1000)),
        ("first", np.array([1]), np.array([1])),
        ("last", np.array([users - 1]), np.array([items - 1])),
        ("first user, last item", np.array([1]), np.array([items - 1])),
        ("unknown user", np.array([0]), np.array([items - 1])),
        ("unknown item", np.array([users - 1]), np.array([0])),
        ("unknown both", np.array([0]), np.array([0])),
        ("zero", np.array([], np.int64), np.array([], np.int64)),
    ):
        answer = graph.run(case, user=ids_of(vocabulary.users, user), item=ids_of(vocabulary.items, item))
        with torch.inference_mode():
            expected = network(torch.from_numpy(user), torch.from_numpy(item)).numpy()
            graph.check_close(case, answer["score"], expected, score_tolerance(network))
        graph.check_equal(case, "known flags", answer["known"], np.stack([user > 0, item > 0], axis=1))


GRAPHS = GraphFamily(build, verify)
