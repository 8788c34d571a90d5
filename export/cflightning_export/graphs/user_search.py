"""`similar_users` and `audience`: the cosines of users with a range of users, and the scores of an item for these."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor

from cflightning.data.vocabulary import Vocabulary
from cflightning.models.network import DotProductTables, ScoringNetwork
from cflightning_export.graphs.base import BundleSource, GraphFamily, TypedGraph, to_scores
from cflightning_export.onnx_tools.builder import Value
from cflightning_export.onnx_tools.session import TOLERANCE, GraphSession, ids_of, score_tolerance
from cflightning_export.onnx_tools.torch_export import PairLogits, export_module


def similar_users_graph(tables: DotProductTables, vocabulary: Vocabulary) -> onnx.ModelProto:
    """Build the graph `similar_users` of a network's user vectors."""
    g = TypedGraph("similar_users", users=vocabulary.users)
    user, others = g.users.index(g["user"]), _indices(g, vocabulary)
    vectors = g.constant("user_vectors", tables.user_vectors.detach().numpy())
    vector, other = vectors[user], vectors[others]
    # Dividing the products takes half the time of scaling the vectors of all users to length 1.
    ones = g.constant("ones", np.ones((tables.user_vectors.shape[1], 1)))
    cosines = g.Gemm(vector / _length(vector, ones), other, transB=1) / _length(other, ones).T
    itself = g.Equal(user.column(), others.row())
    return g.finish(similarity=g.Where(itself, -np.inf, g.Clip(cosines, -1.0, 1.0)), known=user > 0)


def audience_graph(network: ScoringNetwork, vocabulary: Vocabulary) -> onnx.ModelProto:
    """Build the graph `audience` of the network that recommends."""
    g = TypedGraph("audience", items=vocabulary.items)
    item, user, tables = g.items.index(g["item"]), _indices(g, vocabulary), network.tables()
    if tables is None:
        order = _pair_logits(network, user, item)
    else:
        user_bias = (tables.user_bias + tables.global_bias).detach().numpy().reshape(-1, 1)
        user_vectors, item_vectors = (
            g.constant(f"{side}_vectors", table.detach().numpy())
            for side, table in (("user", tables.user_vectors), ("item", tables.item_vectors))
        )
        item_bias = g.constant("item_bias", tables.item_bias.detach().numpy().reshape(-1))
        dots = g.Gemm(item_vectors[item], user_vectors[user], transB=1)
        order = dots + item_bias[item].column() + g.constant("user_bias", user_bias)[user].T
    return g.finish(order=order, score=to_scores(network.scale, order, fillers=False), known=item > 0)


def _indices(g: TypedGraph, vocabulary: Vocabulary) -> Value:
    """Return the indices of the users in the requested range: int64 [m]."""
    begin, end = (g.Min(g[name], [len(vocabulary.users)]) + 1 for name in ("begin", "end"))
    return g.Range(g.Squeeze(begin), g.Squeeze(end), 1)


def _length(vectors: Value, ones: Value) -> Value:
    """Return the lengths of vectors, float [n, 1]; 1 for those of zeros.

    Args:
        vectors: float [n, dim].
        ones: float [dim, 1]; a product with it is faster than onnxruntime's ReduceL2.
    """
    g = vectors.graph
    length = g.Sqrt(g.MatMul(vectors * vectors, ones))
    return g.Where(length > 0.0, length, 1.0)


def _pair_logits(network: ScoringNetwork, user: Value, item: Value) -> Value:
    """Return the logits of items with users, float [n, m], of a network that is not a dot product."""
    g = user.graph
    shape = g.Concat(item.shape(), user.shape(), axis=0)
    pairs = {"user_index": g.Expand(user.row(), shape).flat(), "item_index": g.Expand(item.column(), shape).flat()}
    logits = g.splice(export_module(PairLogits(network), list(pairs), "logits"), pairs)
    return g.Reshape(logits, shape, allowzero=1)


def build(source: BundleSource) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Yield `audience` and, where the network is a dot product, `similar_users`."""
    network = source.networks.recommend
    yield "audience", audience_graph(network, source.vocabulary)
    if (tables := network.tables()) is not None:
        yield "similar_users", similar_users_graph(tables, source.vocabulary)


def verify(folder: Path, source: BundleSource) -> None:
    """Compare the results for several ranges of users with those of torch."""
    with torch.inference_mode():
        _verify_audience(folder, source)
        if (tables := source.networks.recommend.tables()) is not None:
            _verify_similar_users(folder, source, tables.user_vectors)


def _verify_audience(folder: Path, source: BundleSource) -> None:
    network, items = source.networks.recommend, source.vocabulary.items
    graph = GraphSession(folder, "audience")
    for case, index, begin, end in _cases(items.num_embeddings, len(source.vocabulary.users)):
        users = torch.arange(network.num_users)[1:][begin:end]
        pairs = users.repeat(len(index)), torch.from_numpy(index).repeat_interleave(len(users))
        logits = network.logit(*pairs).reshape(len(index), len(users))
        answer = graph.run(case, item=ids_of(items, index), begin=np.array([begin]), end=np.array([end]))
        largest = float(logits.abs().max()) if logits.numel() else 0.0
        graph.check_close(f"{case} (order)", answer["order"], logits.numpy(), 1e-5 * max(largest, 1.0))
        graph.check_close(case, answer["score"], network.scale(logits).numpy(), score_tolerance(network))
        graph.check_equal(case, "known flags", answer["known"], index > 0)


def _verify_similar_users(folder: Path, source: BundleSource, vectors: Tensor) -> None:
    users = source.vocabulary.users
    unit = torch.nn.functional.normalize(vectors, eps=1e-30)
    graph = GraphSession(folder, "similar_users")
    for case, index, begin, end in _cases(users.num_embeddings, len(users)):
        cosines = unit[torch.from_numpy(index)] @ unit[1:].T
        row = np.flatnonzero(index)
        cosines[row, index[row] - 1] = -torch.inf
        answer = graph.run(case, user=ids_of(users, index), begin=np.array([begin]), end=np.array([end]))
        graph.check_close(case, answer["similarity"], cosines[:, begin:end].numpy(), TOLERANCE)
        graph.check_equal(case, "known flags", answer["known"], index > 0)


def _cases(num_embeddings: int, num_users: int) -> Iterator[tuple[str, np.ndarray, int, int]]:
    """Yield a name, indices, and a range of at most a few thousand users."""
    some = np.random.default_rng(2).integers(0, num_embeddings, 5)
    last = max(0, num_users - 1000)
    yield "first users", some, 0, 1000
    yield "last users", np.array([num_embeddings - 1, 1]), last, num_users + 5
    yield "one user", np.array([0]), num_users // 2, num_users // 2 + 1
    yield "no users", some, num_users, num_users
    yield "zero", np.array([], np.int64), 0, 10


GRAPHS = GraphFamily(build, verify)
