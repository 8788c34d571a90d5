"""`recommend.onnx` of a large catalogue: rough scores of all items in 8 bits, exact ones of the best of them.

Every list is proven. The first pass knows by how much a rough score may be off (`codes`): where the last exact score of
a list beats all that may hide behind the rest, no other item belongs into it. Where it does not (below one list in a
thousand, and lists that are long for the catalogue), the same call scores everything exactly.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from cflightning.data.vocabulary import Vocabulary
from cflightning.models.network import FoldedTables, RatingNetwork, RatingScale
from cflightning_export import graphs
from cflightning_export.codes import MASKED, Codes, encode, needed
from cflightning_export.nodes import END, Nodes, Value

FILTERED = {"recommend": False, "filtered": True}
"""Question -> whether only some items are allowed."""
FEWEST_ITEMS = 16_384
"""Rows, the unknown one included, of the smallest catalogue that is searched so; measured (`make bench-search`)."""
GROUP = 16
"""Neighbours that share a place in the first TopK, which sees the best of them.

The best of neighbours is found in a third of the time that the best of rows a sixteenth of the table apart takes."""
MOST = 4096
"""Candidates; longer lists are scored exactly from the start, or nearly so."""
SAMPLE, SHORT, LONG, SHARE = 1000, 10, 100, 0.999
"""Users, the two lengths of their lists, and the share of these that must be proven by the candidates chosen."""


class Candidates(NamedTuple):
    """How many items the second pass looks at for lists of k: ``base + slope * (k + exclusions of a user)``."""

    base: int
    slope: int


class Search(NamedTuple):
    """What a search in two passes needs."""

    tables: FoldedTables
    codes: Codes
    candidates: Candidates


def find_search(tables: FoldedTables) -> Search:
    """The codes of tables, and how many candidates these take."""
    codes = encode(tables)
    return Search(tables, codes, candidates(codes, tables))


def candidates(codes: Codes, tables: FoldedTables, seed: int = 0) -> Candidates:
    """The fewest candidates, linear in the length of the list, that prove nearly all lists of sampled users.

    Args:
        codes: of the tables.
        tables: with at least `LONG` known items and a known user.
        seed: of the sample.
    """
    users = np.random.default_rng(seed).integers(1, len(codes.user), SAMPLE)
    counts = needed(codes, tables, users, (SHORT, LONG))
    short, long = np.quantile(counts, SHARE, axis=1, method="higher").tolist()
    slope = max(1, math.ceil((long - short) / (LONG - SHORT)))
    # A quarter more, for the users who were not asked.
    return Candidates(max(0, math.ceil(1.25 * short) - slope * SHORT), slope)


def best_graphs(network: RatingNetwork, vocabulary: Vocabulary, core: onnx.ModelProto) -> dict[str, onnx.ModelProto]:
    """`recommend` and `filtered`: one pass over a small catalogue, two over a large one, with the same answers.

    Args:
        network: that recommends.
        vocabulary: its ids.
        core: its `graphs.catalogue_core`.
    """
    tables = network.fold()
    if tables is None or network.num_items < FEWEST_ITEMS:
        return {
            name: graphs.best_items(name, core, network.scale, vocabulary, filtered=filtered)
            for name, filtered in FILTERED.items()
        }
    search = find_search(tables)
    return {
        name: two_pass_graph(name, search, network.scale, vocabulary, filtered=filtered)
        for name, filtered in FILTERED.items()
    }


def two_pass_graph(
    name: str, search: Search, scale: RatingScale, vocabulary: Vocabulary, *, filtered: bool = False
) -> onnx.ModelProto:
    """Answers as `graphs.best_items` does, with the same inputs and outputs."""
    g = Nodes()
    for constant, value in _constants(search, vocabulary).items():
        g.constant(constant, value, value.dtype)
    g.rows(vocabulary.users, "user", to="user_row")
    g.rows(vocabulary.items, "exclude_item", to="exclude_row")
    g.known("user_row")
    g("Gather", "user_vectors", "user_row", to="vector")
    g("Min", "k", "catalogue", to="count")
    g("Unsqueeze", "exclude_user", "last", to="exclude_user_column")
    g("Unsqueeze", "exclude_row", "last", to="exclude_row_column")
    g("Concat", "exclude_user_column", "exclude_row_column", to="excluded", axis=1)
    g("Shape", "exclude_row", to="how_many")
    _first_pass(g, filtered)
    _second_pass(g)
    _proof(g)
    g("If", "doubt", to="value row", then_branch=_everything(filtered), else_branch=_as_found())
    g("Gather", "user_bias", "user_row", to="offset")
    g.scaled(scale, g("Add", "value", "offset"), to="score")
    g.raw(vocabulary.items, g("Sub", "row", g.integer(1)), to="item")
    return g.model(name, *graphs.recommend_signature(vocabulary, filtered=filtered))


def _first_pass(g: Nodes, filtered: bool) -> None:
    """Rough scores `masked` int32 [n, rows]; of the best of them `rough` [n, c] and their `rows`."""
    # Unsigned codes without a zero point: the only ones for which onnxruntime has a kernel of one row.
    g("Gather", "user_code", "user_row", to="code")
    g("MatMulInteger", "code", "item_code", to="products")
    g("Add", "products", "item_shift", to="shifted")
    g("Squeeze", "shifted", "first", to="unmasked")
    g("Expand", "masked_score", "how_many", to="masks")
    g("ScatterND", "unmasked", "excluded", "masks", to="without" if filtered else "masked")
    if filtered:
        g("Pad", "allowed", "around", to="may")
        g("Where", "may", "without", "masked_score", to="masked")
    # Without what it excludes, a list of k reaches as deep as a longer one.
    g("Shape", "user_row", to="how_many_users")
    g("Max", "how_many_users", "one_user", to="at_least_one")
    g("Div", "how_many", "at_least_one", to="exclusions")
    g("Add", "k", "exclusions", to="depth")
    g("Mul", "depth", "slope", to="sloped")
    g("Add", "sloped", "base", to="wanted")
    g("Min", "wanted", "most", to="examined")
    g("Reshape", "masked", "by_group", to="groups")
    g("ReduceMax", "groups", "last", to="best_of_groups", keepdims=0)
    g("TopK", "best_of_groups", "examined", to="group_score group", sorted=0)
    g("Unsqueeze", "group", "last", to="group_column")
    g("Mul", "group_column", "group_size", to="group_start")
    g("Add", "group_start", "within_group", to="group_rows")
    g("Flatten", "group_rows", to="member")
    g("GatherElements", "masked", "member", to="member_score", axis=1)
    g("TopK", "member_score", "examined", to="rough at", sorted=0)
    g("GatherElements", "member", "at", to="rows", axis=1)


def _second_pass(g: Nodes) -> None:
    """Exact scores without the user's bias: the best, `found_value` float32 [n, k'] and their `found_row`."""
    # In the order of the catalogue, so that equals stay in it.
    g("TopK", "rows", "examined", to="ordered order", largest=0)
    # Padding may be among them where nearly all is masked.
    g("Min", "ordered", "last_row", to="candidate")
    g("Gather", "item_vectors", "candidate", to="candidate_vector")
    g("Unsqueeze", "vector", "last", to="vector_column")
    g("MatMul", "candidate_vector", "vector_column", to="dot_column")
    g("Squeeze", "dot_column", "last", to="dot")
    g("Gather", "item_bias", "candidate", to="candidate_bias")
    g("Add", "dot", "candidate_bias", to="exact")
    g("Min", "count", "examined", to="found")
    g("TopK", "exact", "found", to="found_value found_at")
    g("GatherElements", "candidate", "found_at", to="found_row", axis=1)


def _proof(g: Nodes) -> None:
    """`doubt`: whether for some user the last found may be beaten by what the last rough score can hide.

    So may it where exclusions have left so little that the masked are among the candidates.
    """
    g("ReduceMin", "rough", "second", to="last_rough")
    g.cast("last_rough", TensorProto.FLOAT, to="last_float")
    g("Gather", "user_step", "user_row", to="step")
    g("Mul", "last_float", "step", to="last_logit")
    g("Gather", "user_slack", "user_row", to="slack")
    g("Add", "last_logit", "slack", to="hidden")
    g("Slice", "found_value", "last", "end", "second", to="last_found")
    g("LessOrEqual", "last_found", "hidden", to="beatable")
    g("Less", "found", "count", to="too_few")
    g("Less", "last_rough", "half_masked", to="has_masked")
    g("Or", "beatable", "has_masked", to="unproven")
    g("Or", "unproven", "too_few", to="doubts")
    g.cast("doubts", TensorProto.INT64, to="doubt_counts")
    g("ReduceSum", "doubt_counts", to="doubt_count", keepdims=0)
    g.cast("doubt_count", TensorProto.BOOL, to="doubt")


def _everything(filtered: bool) -> onnx.GraphProto:
    """The best k of exact scores of all items."""
    g = Nodes()
    g("Gemm", "vector", "item_vectors", "item_bias", to="all", transB=1)
    g("Expand", "minus_infinity", "how_many", to="minus_infinities")
    g("ScatterND", "all", "excluded", "minus_infinities", to="all_without" if filtered else "all_allowed")
    if filtered:
        g("Pad", "allowed", "before", to="all_may")
        g("Where", "all_may", "all_without", "minus_infinity", to="all_allowed")
    g("TopK", "all_allowed", "count", to="all_value all_row")
    return g.branch("everything", _found("all_value", "all_row"))


def _as_found() -> onnx.GraphProto:
    g = Nodes()
    g("Identity", "found_value", to="same_value")
    g("Identity", "found_row", to="same_row")
    return g.branch("as_found", _found("same_value", "same_row"))


def _found(value: str, row: str) -> list[Value]:
    return [(value, TensorProto.FLOAT, ["n", "count"]), (row, TensorProto.INT64, ["n", "count"])]


def _constants(search: Search, vocabulary: Vocabulary) -> dict[str, NDArray[Any]]:
    tables, codes, chosen = search
    rows = len(codes.shift)
    groups = -(-rows // GROUP)
    padding = groups * GROUP - rows
    item_bias = tables.item_bias.numpy().copy()
    item_bias[0] = -np.inf  # never recommended
    return {
        "user_vectors": tables.user_vectors.numpy(),
        "user_bias": (tables.user_bias.numpy() + tables.global_bias.numpy())[:, None],
        "item_vectors": tables.item_vectors.numpy(),
        "item_bias": item_bias,
        "user_code": codes.user,
        "user_step": codes.step[:, None],
        "user_slack": codes.slack[:, None],
        "item_code": np.pad(codes.item, ((0, 0), (0, padding)))[None],
        "item_shift": np.pad(codes.shift, (0, padding), constant_values=MASKED),
        "masked_score": np.array(MASKED, np.int32),
        "half_masked": np.array(MASKED // 2, np.int32),
        "minus_infinity": np.array(-np.inf, np.float32),
        "around": np.array([1, padding]),  # of what is allowed: the unknown row, and rows that do not exist
        "before": np.array([1, 0]),
        "by_group": np.array([0, groups, GROUP]),
        "group_size": np.array(GROUP),
        "within_group": np.arange(GROUP),
        "base": np.array([chosen.base]),
        "slope": np.array([chosen.slope]),
        "most": np.array([min(MOST, groups)]),
        "catalogue": np.array([len(vocabulary.items)]),
        "last_row": np.array(len(vocabulary.items)),
        "one_user": np.array([1]),
        "first": np.array([0]),
        "second": np.array([1]),
        "last": np.array([-1]),
        "end": np.array([END]),
    }
