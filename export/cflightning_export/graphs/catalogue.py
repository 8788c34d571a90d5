"""`recommend`, `filtered` and `scores`: users to the best items, or to the scores of all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor

from cflightning.data.vocabulary import Vocabulary
from cflightning.models.network import RatingScale, ScoringNetwork
from cflightning_export.graphs.base import (
    MIN_TWO_PASS_ITEMS,
    BundleSource,
    GraphFamily,
    TypedGraph,
    best_items,
    to_scores,
)
from cflightning_export.graphs.two_pass import find_search, two_pass_graph
from cflightning_export.onnx_tools.session import GraphSession, ids_of, score_tolerance
from cflightning_export.onnx_tools.torch_export import CatalogueLogits, export_module

TOP_K_GRAPHS = {"recommend": False, "filtered": True}
"""Graph -> whether it has the input `allowed`, which restricts the recommended items."""

MIN_PROVABLE = 0.5
"""Smallest `Search.provable` of a search in two passes: a list takes .4 times as long as in one pass, 1.65 unproven."""


def catalogue_logits(network: ScoringNetwork) -> onnx.ModelProto:
    """Let torch export the logits of every item: `user_index` int64 [n] -> `logits` float [n, 1 + items]."""
    return export_module(CatalogueLogits(network), ["user_index"], "logits")


def top_k_graphs(
    network: ScoringNetwork, vocabulary: Vocabulary, logits: onnx.ModelProto, min_items: int = MIN_TWO_PASS_ITEMS
) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Yield `recommend` and `filtered`: one pass over a small catalogue, two passes over a large one.

    One pass is also faster where 8 bits prove hardly any list, as for a linear autoencoder: in each of its factors, a
    few items are far from all others.

    Args:
        network: the network that recommends.
        vocabulary: ids of users and items.
        logits: its `catalogue_logits`.
        min_items: smallest catalogue that is searched in two passes, the unknown item included.
    """
    tables = network.tables()
    search = None if tables is None or network.num_items < min_items else find_search(tables)
    if search is None or search.provable < MIN_PROVABLE:
        for name, filtered in TOP_K_GRAPHS.items():
            yield name, one_pass_graph(name, logits, network.scale, vocabulary, filtered=filtered)
        return
    for name, filtered in TOP_K_GRAPHS.items():
        yield name, two_pass_graph(name, search, network.scale, vocabulary, filtered=filtered)


def one_pass_graph(
    name: str, logits: onnx.ModelProto, scale: RatingScale, vocabulary: Vocabulary, *, filtered: bool
) -> onnx.ModelProto:
    """Build `recommend` or `filtered` of the logits of all items."""
    g = TypedGraph(name, users=vocabulary.users, items=vocabulary.items)
    user, excluded = g.users.index(g["user"]), g.items.index(g["exclude_item"])
    every = g.splice(logits, {"user_index": user})
    allowed = g["allowed"] if filtered else None
    item, best = best_items(g.items, every, g["k"], g["exclude_user"], excluded, allowed)
    return g.finish(item=item, score=to_scores(scale, best), known=user > 0)


def scores_graph(logits: onnx.ModelProto, scale: RatingScale, vocabulary: Vocabulary) -> onnx.ModelProto:
    """Build `scores` of the logits of all items."""
    g = TypedGraph("scores", users=vocabulary.users, items=vocabulary.items)
    user = g.users.index(g["user"])
    order = g.splice(logits, {"user_index": user})[:, 1:]
    return g.finish(order=order, score=to_scores(scale, order, fillers=False), known=user > 0)


def build(source: BundleSource) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Yield `recommend`, `filtered` and `scores`."""
    network, vocabulary = source.networks.recommend, source.vocabulary
    logits = catalogue_logits(network)  # once for all three: it takes a second
    yield from top_k_graphs(network, vocabulary, logits, source.min_two_pass_items)
    yield "scores", scores_graph(logits, network.scale, vocabulary)


def verify(folder: Path, source: BundleSource) -> None:
    """Compare the results of many, first, last, unknown and no users with those of torch."""
    with torch.inference_mode():
        _verify_recommend(folder, source)
        _verify_filtered_and_scores(folder, source)


def _verify_recommend(folder: Path, source: BundleSource) -> None:
    network, vocabulary, rng = source.networks.recommend, source.vocabulary, np.random.default_rng(0)
    users, items = vocabulary.users.num_embeddings, vocabulary.items.num_embeddings
    graph = GraphSession(folder, "recommend")
    for case, user, k in (
        ("many", rng.integers(0, users, 20), 10),
        ("first", np.array([1]), 1),
        ("last, whole catalogue", np.array([users - 1]), items + 5),
        ("unknown", np.array([0]), 10),
        ("zero", np.array([], np.int64), 10),
    ):
        row = np.repeat(np.arange(len(user)), min(5, items))
        excluded = rng.integers(0, items, len(row))  # index 0 among them: unknown exclusions are allowed
        logits = network.catalogue(torch.from_numpy(user)).clone()
        logits[torch.from_numpy(row), torch.from_numpy(excluded)] = -torch.inf
        answer = graph.run(
            case,
            user=ids_of(vocabulary.users, user),
            k=np.array([k]),
            exclude_user=row,
            exclude_item=ids_of(vocabulary.items, excluded),
        )
        _check_top_k(graph, case, answer, logits[:, 1:], k, source)
        graph.check_equal(case, "known flags", answer["known"], user > 0)


def _verify_filtered_and_scores(folder: Path, source: BundleSource) -> None:
    network, vocabulary, rng = source.networks.recommend, source.vocabulary, np.random.default_rng(1)
    users, items = vocabulary.users.num_embeddings, vocabulary.items.num_embeddings
    filtered, scores = (GraphSession(folder, name) for name in ("filtered", "scores"))
    for case, user in (
        ("many", rng.integers(0, users, 20)),
        ("last", np.array([users - 1])),
        ("unknown", np.array([0])),
        ("zero", np.array([], np.int64)),
    ):
        allowed, ids = rng.random(items - 1) < 0.5, ids_of(vocabulary.users, user)
        logits = network.catalogue(torch.from_numpy(user))[:, 1:].clone()
        answer = scores.run(case, user=ids)
        largest = float(logits.abs().max()) if logits.numel() else 0.0
        scores.check_close(f"{case} (order)", answer["order"], logits.numpy(), 1e-5 * max(largest, 1e-30))
        scores.check_close(case, answer["score"], network.scale(logits).numpy(), score_tolerance(network))
        scores.check_equal(case, "known flags", answer["known"], user > 0)
        logits[:, ~torch.from_numpy(allowed)] = -torch.inf
        logits[:, 0] = -torch.inf
        first_item = vocabulary.items.values[np.zeros(len(user), np.int64)]
        answer = filtered.run(
            case,
            user=ids,
            k=np.array([5]),
            exclude_user=np.arange(len(user)),
            exclude_item=first_item,
            allowed=allowed,
        )
        _check_top_k(filtered, case, answer, logits, 5, source)
        filtered.check_equal(case, "known flags", answer["known"], user > 0)


def _check_top_k(
    graph: GraphSession, case: str, answer: dict[str, np.ndarray], logits: Tensor, k: int, source: BundleSource
) -> None:
    """Compare recommendations with the k highest logits, float [n, items], of which excluded ones are -inf."""
    network, items = source.networks.recommend, source.vocabulary.items
    best = logits.topk(min(k, logits.shape[1]), dim=-1).values
    expected = network.scale(best).masked_fill(best.isneginf(), -torch.inf).numpy()
    graph.check_close(case, answer["score"], expected, score_tolerance(network))
    # Ties may come in another order; then the scores of the items themselves must agree.
    position = items.indices(answer["item"].reshape(-1)).reshape(answer["item"].shape) - 1
    actual = network.scale(logits.gather(1, torch.from_numpy(position).clamp(min=0))).numpy()
    real = np.isfinite(answer["score"])
    graph.check_close(f"{case} (items)", actual[real], answer["score"][real], score_tolerance(network))


GRAPHS = GraphFamily(build, verify)
