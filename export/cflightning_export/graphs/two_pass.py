"""`recommend` and `filtered` of a large catalogue: approximate scores of all items, exact scores of the best of them.

Every list is proven to be the exact one. The error of an approximate score is bounded (`quantized_vectors`): if the
last exact score of a list is above all that the remaining items can reach, no other item belongs into it. Otherwise the
same call takes more candidates, and if these do not prove the list either (below one list in a thousand, and lists that
are long for the catalogue), it scores all items exactly.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from cflightning.data.vocabulary import Vocabulary
from cflightning.models.network import DotProductTables, RatingScale
from cflightning_export.graphs.base import TypedGraph, to_scores
from cflightning_export.graphs.quantized_vectors import MASKED, QuantizedVectors, quantize, required_candidates
from cflightning_export.onnx_tools.builder import TensorType, Value

GROUP = 16
"""Number of neighbouring items that send their best one to the first TopK.

The best of neighbours is found in a third of the time that the best of every sixteenth part of the table takes."""
MAX_CANDIDATES = 4096
"""Longer lists are scored exactly from the start, or nearly so."""
SAMPLED_USERS, SHORT_LIST, LONG_LIST = 1000, 10, 100
"""Users, and the two lengths of their lists, from which the numbers of candidates are estimated."""
ROUNDS = ((0.95, 1.0), (0.999, 1.25))
"""For each round of candidates, the share of the sampled lists that it must prove, and a factor for safety.

A candidate takes about .45 us, mostly in branches that the processor mispredicts, and a second round as much as 200
candidates: of 100,000 items a twentieth of the users needs twice as many as the others. After the last round all items
are scored, so it takes a quarter more candidates, for the users who were not sampled."""

BEST: tuple[TensorType, TensorType] = (TensorProto.FLOAT, ["n", "count"]), (TensorProto.INT64, ["n", "count"])
"""Types of what every branch returns: exact scores without the bias of the user, and indices of the items."""


class Candidates(NamedTuple):
    """Number of items that are scored exactly for lists of k: ``base + slope * (k + exclusions of a user)``."""

    base: int
    slope: int


class Search(NamedTuple):
    """The tables and settings of a search in two passes.

    Attributes:
        tables: exact tables.
        vectors: quantised vectors.
        rounds: candidates of each round.
        provable: share of the short lists of sampled users that the largest number of candidates proves.
    """

    tables: DotProductTables
    vectors: QuantizedVectors
    rounds: tuple[Candidates, ...]
    provable: float


class _Query(NamedTuple):
    """Values that all rounds of a call use.

    Attributes:
        vector: float [n, dim], the vectors of the users.
        column: float [n, dim, 1], the same.
        masked: int32 [n, 1 + items + padding], approximate scores.
        best_of_groups: int32 [n, groups].
        excluded: int64 [m, 2], user and item of each exclusion.
        exclusions: int64 [1], m.
        depth: int64 [1], k and the exclusions of a user: how deep a list reaches.
        length: int64 [1], length of the lists.
        step: float [n, 1], logits for one unit of the approximate score.
        slack: float [n, 1], logits that are added to the bound.
        allowed: bool [items]; None for all.
    """

    vector: Value
    column: Value
    masked: Value
    best_of_groups: Value
    excluded: Value
    exclusions: Value
    depth: Value
    length: Value
    step: Value
    slack: Value
    allowed: Value | None


def find_search(tables: DotProductTables) -> Search:
    """Quantise tables, and estimate the candidates of each round."""
    vectors = quantize(tables)
    counts = sample_required_candidates(vectors, tables)
    provable = float((counts[0] <= _max_candidates(vectors)).mean())
    return Search(tables, vectors, estimate_candidates(counts), provable)


def sample_required_candidates(vectors: QuantizedVectors, tables: DotProductTables) -> NDArray[np.int64]:
    """Return the candidates that the short and the long list of sampled users require: int64 [2, users].

    Args:
        vectors: quantised vectors of the tables.
        tables: with at least `LONG_LIST` known items and a known user.
    """
    users = np.random.default_rng(0).integers(1, len(vectors.user), SAMPLED_USERS)
    return required_candidates(vectors, tables, users, (SHORT_LIST, LONG_LIST))


def estimate_candidates(counts: NDArray[np.int64]) -> tuple[Candidates, ...]:
    """Return the fewest candidates of each round, linear in k, for the required ones of sampled lists."""
    rounds = []
    for share, factor in ROUNDS:
        short, long = np.quantile(counts, share, axis=1, method="higher").tolist()
        slope = max(1, math.ceil((long - short) / (LONG_LIST - SHORT_LIST)))
        rounds.append(Candidates(max(0, math.ceil(factor * short) - slope * SHORT_LIST), slope))
    return tuple(rounds)


def two_pass_graph(
    name: str, search: Search, scale: RatingScale, vocabulary: Vocabulary, *, filtered: bool = False
) -> onnx.ModelProto:
    """Build `recommend` or `filtered`, with the same answers as of one pass."""
    tables = search.tables
    g = TypedGraph(name, users=vocabulary.users, items=vocabulary.items)
    user, excluded_item = g.users.index(g["user"]), g.items.index(g["exclude_item"])
    query = _first_pass(g, search, user, excluded_item, g["allowed"] if filtered else None)
    score, item = _round(g, search, query, 0)
    offset = g.constant("user_bias", (tables.user_bias.numpy() + tables.global_bias.numpy())[:, None])[user]
    return g.finish(item=g.items.id(item - 1), score=to_scores(scale, score + offset), known=user > 0)


def _first_pass(g: TypedGraph, search: Search, user: Value, excluded_item: Value, allowed: Value | None) -> _Query:
    """Compute approximate scores of all items."""
    tables, vectors = search.tables, search.vectors
    groups = _num_groups(search.vectors)
    padding = groups * GROUP - len(vectors.shift)
    vector = g.constant("user_vectors", tables.user_vectors.numpy())[user]
    excluded = g.Concat(g["exclude_user"].column(), excluded_item.column(), axis=1)
    exclusions = excluded_item.shape()
    # Unsigned codes without a zero point: the only ones for which onnxruntime has a kernel of one row.
    item_codes = g.constant("item_code", np.pad(vectors.item, ((0, 0), (0, padding)))[None], np.int8)
    shift = g.constant("item_shift", np.pad(vectors.shift, (0, padding), constant_values=MASKED), np.int32)
    products = g.MatMulInteger(g.constant("user_code", vectors.user, np.uint8)[user], item_codes)
    unmasked = g.Squeeze(products + shift, [0])
    mask = g.constant("masked_score", MASKED, np.int32)
    masked = g.ScatterND(unmasked, excluded, g.Expand(mask, exclusions))
    if allowed is not None:  # neither the unknown item nor the padding is allowed
        masked = g.Where(g.Pad(allowed, [1, padding]), masked, mask)
    best_of_groups = g.ReduceMax(g.Reshape(masked, [0, groups, GROUP]), [-1], keepdims=0)
    # A list of k with exclusions needs as many candidates as one longer by their number.
    users = g.Max(user.shape(), [1])
    depth = g["k"] + exclusions / users
    step = g.constant("user_step", vectors.step[:, None])[user]
    slack = g.constant("user_slack", vectors.slack[:, None])[user]
    length = g.Min(g["k"], [len(g.items.ids)])
    return _Query(
        vector, vector.column(), masked, best_of_groups, excluded, exclusions, depth, length, step, slack, allowed
    )


def _num_groups(vectors: QuantizedVectors) -> int:
    return -(-len(vectors.shift) // GROUP)


def _max_candidates(vectors: QuantizedVectors) -> int:
    return min(MAX_CANDIDATES, _num_groups(vectors))


def _round(g: TypedGraph, search: Search, query: _Query, number: int) -> list[Value]:
    """Score some candidates exactly; if these do not prove the lists, take the next round, or score all items.

    Returns:
        The types `BEST`.
    """
    candidates, item_bias = search.rounds[number], search.tables.item_bias.numpy().copy()
    item_bias[0] = -np.inf  # never recommended
    slope, base = (
        g.constant(f"{name}_{number}", [value], np.int64)
        for name, value in (("slope", candidates.slope), ("base", candidates.base))
    )
    examined = g.Min(query.depth * slope + base, [_max_candidates(search.vectors)])
    _, group = g.top_k(query.best_of_groups, examined, sorted=0)
    members = g.Flatten(group.column() * GROUP + g.constant("within_group", np.arange(GROUP), np.int64))
    approximate, place = g.top_k(g.GatherElements(query.masked, members, axis=1), examined, sorted=0)
    # In the order of the catalogue, so that ties stay in it.
    ordered, _ = g.top_k(g.GatherElements(members, place, axis=1), examined, largest=0)
    # Padding may be among the candidates where nearly all is masked.
    candidate = g.Min(ordered, len(g.items.ids))
    vectors, biases = g.constant("item_vectors", search.tables.item_vectors.numpy()), g.constant("item_bias", item_bias)
    dots = g.Squeeze(g.MatMul(vectors[candidate], query.column), [-1])
    returned = g.Min(query.length, examined)
    score, best = g.top_k(dots + biases[candidate], returned)
    item = g.GatherElements(candidate, best, axis=1)
    last = number + 1 == len(search.rounds)
    return g.if_else(
        _is_unproven(query, score, approximate, returned),
        lambda: _score_all(g, query, vectors, biases) if last else _round(g, search, query, number + 1),
        lambda: [score, item],
        BEST,
    )


def _is_unproven(query: _Query, score: Value, approximate: Value, returned: Value) -> Value:
    """Return whether for some user an item that is not a candidate may be better than the last of the list: bool [].

    This is also so where exclusions have left so little that masked items are among the candidates.

    Args:
        query: the users.
        score: float [n, returned], exact scores, best first.
        approximate: int32 [n, candidates], approximate scores of the candidates.
        returned: int64 [1], length of the lists.
    """
    g = score.graph
    least = g.ReduceMin(approximate, [1])
    bound = least.cast(TensorProto.FLOAT) * query.step + query.slack
    unproven = (score[:, -1:] <= bound) | (least < g.constant("half_masked", MASKED // 2, np.int32))
    unproven = (unproven | (returned < query.length)).cast(TensorProto.INT64)
    return g.ReduceSum(unproven, keepdims=0).cast(TensorProto.BOOL)


def _score_all(g: TypedGraph, query: _Query, vectors: Value, biases: Value) -> tuple[Value, Value]:
    """Return the best of the exact scores of all items: the types `BEST`."""
    scores = g.Gemm(query.vector, vectors, biases, transB=1)
    scores = g.ScatterND(scores, query.excluded, g.Expand(-np.inf, query.exclusions))
    if query.allowed is not None:
        scores = g.Where(g.Pad(query.allowed, [1, 0]), scores, -np.inf)
    return g.top_k(scores, query.length)
