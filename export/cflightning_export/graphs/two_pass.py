"""`recommend.onnx` of a large catalogue: rough scores of all items in 8 bits, exact ones of the best of them.

Every list is proven. The first pass knows by how much a rough score may be off (`codes`): where the last exact score of
a list beats all that may hide behind the rest, no other item belongs into it. Where it does not, the same call looks at
more candidates, and where that proves nothing either (below one list in a thousand, and lists that are long for the
catalogue), it scores everything exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from cflightning.data.vocabulary import Vocabulary
from cflightning.models.network import FoldedTables, RatingNetwork, RatingScale
from cflightning_export.graphs import base as graphs
from cflightning_export.graphs.codes import MASKED, Codes, encode, needed
from cflightning_export.onnx_tools.builder import END, Nodes, Value

FILTERED = {"recommend": False, "filtered": True}
"""Question -> whether only some items are allowed."""
FEWEST_ITEMS = 16_384
"""Rows, the unknown one included, of the smallest catalogue that is searched so; measured (`make bench-search`)."""
GROUP = 16
"""Neighbours that share a place in the first TopK, which sees the best of them.

The best of neighbours is found in a third of the time that the best of rows a sixteenth of the table apart takes."""
MOST = 4096
"""Candidates; longer lists are scored exactly from the start, or nearly so."""
SAMPLE, SHORT, LONG = 1000, 10, 100
"""Users, and the two lengths of their lists, by which the numbers of candidates are chosen."""
LOOKS = ((0.95, 1.0), (0.999, 1.25))
"""Of each look, the share of these lists that must be proven, and how many times the candidates for that are taken.

A candidate takes about .45 us, mostly for branches that the processor cannot foresee, and a second look as much as 200:
of 100,000 items a twentieth of the users needs twice as many as the others. The last look, behind which only scoring
everything is left, takes a quarter more, for the users who were not asked."""


class Candidates(NamedTuple):
    """How many items the second pass looks at for lists of k: ``base + slope * (k + exclusions of a user)``."""

    base: int
    slope: int


class Search(NamedTuple):
    """What a search in two passes needs."""

    tables: FoldedTables
    codes: Codes
    looks: tuple[Candidates, ...]


def find_search(tables: FoldedTables) -> Search:
    """The codes of tables, and how many candidates each look takes."""
    codes = encode(tables)
    return Search(tables, codes, candidates(codes, tables))


def candidates(codes: Codes, tables: FoldedTables, seed: int = 0) -> tuple[Candidates, ...]:
    """The fewest candidates, linear in the length of the list, that prove the lists of sampled users: for each look.

    Args:
        codes: of the tables.
        tables: with at least `LONG` known items and a known user.
        seed: of the sample.
    """
    users = np.random.default_rng(seed).integers(1, len(codes.user), SAMPLE)
    counts = needed(codes, tables, users, (SHORT, LONG))
    found = []
    for share, times in LOOKS:
        short, long = np.quantile(counts, share, axis=1, method="higher").tolist()
        slope = max(1, math.ceil((long - short) / (LONG - SHORT)))
        found.append(Candidates(max(0, math.ceil(times * short) - slope * SHORT), slope))
    return tuple(found)


def best_graphs(
    network: RatingNetwork, vocabulary: Vocabulary, core: onnx.ModelProto
) -> Iterator[tuple[str, onnx.ModelProto]]:
    """`recommend` and `filtered`: one pass over a small catalogue, two over a large one, with the same answers.

    Args:
        network: that recommends.
        vocabulary: its ids.
        core: its `graphs.catalogue_core`.
    """
    tables = network.fold()
    if tables is None or network.num_items < FEWEST_ITEMS:
        for name, filtered in FILTERED.items():
            yield name, graphs.best_items(name, core, network.scale, vocabulary, filtered=filtered)
        return
    search = find_search(tables)
    for name, filtered in FILTERED.items():
        yield name, two_pass_graph(name, search, network.scale, vocabulary, filtered=filtered)


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
    _look(g, 0, len(search.looks), filtered, to="value row")
    g("Gather", "user_bias", "user_row", to="offset")
    g.scaled(scale, g("Add", "value", "offset"), to="score")
    g.raw(vocabulary.items, g("Sub", "row", g.integer(1)), to="item")
    return g.model(name, *graphs.recommend_signature(vocabulary, filtered=filtered))


def _first_pass(g: Nodes, filtered: bool) -> None:
    """Rough scores `masked` int32 [n, rows], and what all looks need beside them."""
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
    g("Reshape", "masked", "by_group", to="groups")
    g("ReduceMax", "groups", "last", to="best_of_groups", keepdims=0)
    # Without what it excludes, a list of k reaches as deep as a longer one.
    g("Shape", "user_row", to="how_many_users")
    g("Max", "how_many_users", "one_user", to="at_least_one")
    g("Div", "how_many", "at_least_one", to="exclusions")
    g("Add", "k", "exclusions", to="depth")
    g("Unsqueeze", "vector", "last", to="vector_column")
    g("Gather", "user_step", "user_row", to="step")
    g("Gather", "user_slack", "user_row", to="slack")


def _look(g: Nodes, number: int, of: int, filtered: bool, *, to: str) -> None:
    """The best k without the user's bias, `to` float32 and int64 [n, k'], values and rows, from exact scores of some.

    Args:
        g: the graph, or the branch of the look before.
        number: of the look, from 0.
        of: how many there are, before everything is scored.
        filtered: whether only some items are allowed.
        to: names for the best.
    """
    wanted = g("Add", g("Mul", "depth", f"slope_{number}"), f"base_{number}")
    examined = g("Min", wanted, "most")
    group = g("TopK", "best_of_groups", examined, sorted=0)
    start = g("Mul", g("Unsqueeze", f"{group}_index", "last"), "group_size")
    member = g("Flatten", g("Add", start, "within_group"))
    rough = g("TopK", g("GatherElements", "masked", member, axis=1), examined, sorted=0)
    # In the order of the catalogue, so that equals stay in it.
    ordered = g("TopK", g("GatherElements", member, f"{rough}_index", axis=1), examined, largest=0)
    # Padding may be among them where nearly all is masked.
    candidate = g("Min", ordered, "last_row")
    dot = g("Squeeze", g("MatMul", g("Gather", "item_vectors", candidate), "vector_column"), "last")
    found = g("Min", "count", examined)
    value = g("TopK", g("Add", dot, g("Gather", "item_bias", candidate)), found)
    row = g("GatherElements", candidate, f"{value}_index", axis=1)
    doubt = _doubt(g, value, found, rough)
    branch = Nodes(f"look_{number + 1}_")
    if number + 1 < of:
        names = f"value_{number + 1}", f"row_{number + 1}"
        _look(branch, number + 1, of, filtered, to=" ".join(names))
        more = branch.branch(f"look_{number + 1}", _best(*names))
    else:
        more = _everything(filtered)
    g("If", doubt, to=to, then_branch=more, else_branch=_as_found(value, row))


def _doubt(g: Nodes, value: str, found: str, rough: str) -> str:
    """Whether for some user the last found may be beaten by what the last rough score can hide: bool [].

    So may it where exclusions have left so little that the masked are among the candidates.

    Args:
        g: the graph.
        value: float32 [n, found], exact scores, best first.
        found: int64 [1], how many.
        rough: int32 [n, c], rough scores of the candidates.
    """
    last_rough = g("ReduceMin", rough, "second")
    hidden = g("Add", g("Mul", g.cast(last_rough, TensorProto.FLOAT), "step"), "slack")
    beatable = g("LessOrEqual", g("Slice", value, "last", "end", "second"), hidden)
    unproven = g("Or", beatable, g("Less", last_rough, "half_masked"))
    doubts = g.cast(g("Or", unproven, g("Less", found, "count")), TensorProto.INT64)
    return g.cast(g("ReduceSum", doubts, keepdims=0), TensorProto.BOOL)


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
    return g.branch("everything", _best("all_value", "all_row"))


def _as_found(value: str, row: str) -> onnx.GraphProto:
    g = Nodes()
    names = f"same_{value}", f"same_{row}"
    g("Identity", value, to=names[0])
    g("Identity", row, to=names[1])
    return g.branch("as_found", _best(*names))


def _best(value: str, row: str) -> list[Value]:
    return [(value, TensorProto.FLOAT, ["n", "count"]), (row, TensorProto.INT64, ["n", "count"])]


def _constants(search: Search, vocabulary: Vocabulary) -> dict[str, NDArray[Any]]:
    tables, codes, looks = search
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
        **{f"base_{number}": np.array([look.base]) for number, look in enumerate(looks)},
        **{f"slope_{number}": np.array([look.slope]) for number, look in enumerate(looks)},
        "most": np.array([min(MOST, groups)]),
        "catalogue": np.array([len(vocabulary.items)]),
        "last_row": np.array(len(vocabulary.items)),
        "one_user": np.array([1]),
        "first": np.array([0]),
        "second": np.array([1]),
        "last": np.array([-1]),
        "end": np.array([END]),
    }
