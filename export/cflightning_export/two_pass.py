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
from onnx import TensorProto, helper

from cflightning.data.vocabulary import Vocabulary
from cflightning.models.network import FoldedTables, RatingNetwork, RatingScale
from cflightning_export import graphs
from cflightning_export.codes import MASKED, Codes, encode, needed
from cflightning_export.graphs import Value, _assemble, _encode, _kind, _rating_scale

FEWEST_ITEMS = 16_384
"""Rows, the unknown one included, of the smallest catalogue that is searched so; measured (`make bench-search`)."""
LANES = 16
"""Items that share a place in the first TopK, which sees the best of them: rows a sixteenth of the table apart."""
MOST = 4096
"""Candidates; longer lists are scored exactly from the start, or nearly so."""
SAMPLE, SHORT, LONG, SHARE = 1000, 10, 100, 0.999
"""Users, the two lengths of their lists, and the share of these that must be proven by the candidates chosen."""


class Candidates(NamedTuple):
    """How many items the second pass looks at for lists of k: ``base + slope * (k + exclusions of a user)``."""

    base: int
    slope: int


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


def recommend_graph(network: RatingNetwork, vocabulary: Vocabulary) -> onnx.ModelProto:
    """One pass over a small catalogue, two over a large one; the same inputs and outputs, the same answers."""
    tables = network.fold()
    if tables is None or network.num_items < FEWEST_ITEMS:
        return graphs.recommend_graph(network, vocabulary)
    return two_pass_graph(tables, network.scale, vocabulary)


def two_pass_graph(tables: FoldedTables, scale: RatingScale, vocabulary: Vocabulary) -> onnx.ModelProto:
    """Answers as `graphs.recommend_graph` does, with the same inputs and outputs."""
    codes = encode(tables)
    nodes = [
        *_encode("user", "user_row", vocabulary.users),
        *_encode("exclude_item", "exclude_row", vocabulary.items),
        _node("Greater", "user_row unknown_row", "known"),
        _node("Gather", "user_vectors user_row", "vector"),
        _node("Min", "k catalogue", "count"),
        _node("Unsqueeze", "exclude_user last", "exclude_user_column"),
        _node("Unsqueeze", "exclude_row last", "exclude_row_column"),
        _node("Concat", "exclude_user_column exclude_row_column", "excluded", axis=1),
        _node("Shape", "exclude_row", "how_many"),
        *_first_pass(),
        *_second_pass(),
        *_proof(),
        _node("If", "doubt", "value row", then_branch=_everything(), else_branch=_as_found()),
        _node("Gather", "user_bias user_row", "offset"),
        _node("Add", "value offset", "logit"),
    ]
    scaling, scale_constants = _rating_scale(scale, "logit", "scaled")
    nodes += [
        *scaling,
        _node("Equal", "value minus_infinity", "filler"),
        _node("Where", "filler minus_infinity scaled", "score"),
        _node("Sub", "row one", "index"),
        _node("Gather", "item_ids index", "item"),
    ]
    inputs: list[Value] = [
        ("user", _kind(vocabulary.users), ["n"]),
        ("k", TensorProto.INT64, [1]),
        ("exclude_user", TensorProto.INT64, ["m"]),
        ("exclude_item", _kind(vocabulary.items), ["m"]),
    ]
    outputs: list[Value] = [
        ("item", _kind(vocabulary.items), ["n", "count"]),
        ("score", TensorProto.FLOAT, ["n", "count"]),
        ("known", TensorProto.BOOL, ["n"]),
    ]
    constants = _constants(tables, codes, candidates(codes, tables), vocabulary) | scale_constants
    return _assemble("recommend", onnx.ModelProto(), nodes, [], constants, inputs, outputs)


def _first_pass() -> list[Any]:
    """Rough scores `masked` int32 [n, rows]; of the best of them `rough` [n, c] and their `rows`."""
    return [
        # Unsigned codes without a zero point: the only ones for which onnxruntime has a kernel of one row.
        _node("Gather", "user_code user_row", "code"),
        _node("MatMulInteger", "code item_code", "products"),
        _node("Add", "products item_shift", "shifted"),
        _node("Squeeze", "shifted first", "unmasked"),
        _node("Expand", "masked_score how_many", "masks"),
        _node("ScatterND", "unmasked excluded masks", "masked"),
        # Without what it excludes, a list of k reaches as deep as a longer one.
        _node("Shape", "user_row", "how_many_users"),
        _node("Max", "how_many_users one_user", "at_least_one"),
        _node("Div", "how_many at_least_one", "exclusions"),
        _node("Add", "k exclusions", "depth"),
        _node("Mul", "depth slope", "sloped"),
        _node("Add", "sloped base", "wanted"),
        _node("Min", "wanted most", "examined"),
        _node("Reshape", "masked by_lane", "lanes"),
        _node("ReduceMax", "lanes second", "best_of_lanes", keepdims=0),
        _node("TopK", "best_of_lanes examined", "place_score place", sorted=0),
        _node("Unsqueeze", "place last", "place_column"),
        _node("Add", "place_column lane_starts", "place_rows"),
        _node("Flatten", "place_rows", "member"),
        _node("GatherElements", "masked member", "member_score", axis=1),
        _node("TopK", "member_score examined", "rough at", sorted=0),
        _node("GatherElements", "member at", "rows", axis=1),
    ]


def _second_pass() -> list[Any]:
    """Exact scores without the user's bias: the best, `found_value` float32 [n, k'] and their `found_row`."""
    return [
        # In the order of the catalogue, so that equals stay in it.
        _node("TopK", "rows examined", "candidate order", largest=0),
        _node("GatherElements", "rough order", "candidate_rough", axis=1),
        _node("Less", "candidate_rough half_masked", "is_masked"),
        _node("Gather", "item_vectors candidate", "candidate_vector"),
        _node("Unsqueeze", "vector last", "vector_column"),
        _node("MatMul", "candidate_vector vector_column", "dot_column"),
        _node("Squeeze", "dot_column last", "dot"),
        _node("Gather", "item_bias candidate", "candidate_bias"),
        _node("Add", "dot candidate_bias", "exact"),
        _node("Where", "is_masked minus_infinity exact", "candidate_value"),
        _node("Min", "count examined", "found"),
        _node("TopK", "candidate_value found", "found_value found_at"),
        _node("GatherElements", "candidate found_at", "found_row", axis=1),
    ]


def _proof() -> list[Any]:
    """`doubt`: whether for some user the last found may be beaten by what the best rough score left behind can hide."""
    return [
        _node("ReduceMin", "rough second", "last_rough"),
        _node("Cast", "last_rough", "last_float", to=TensorProto.FLOAT),
        _node("Gather", "user_step user_row", "step"),
        _node("Mul", "last_float step", "last_logit"),
        _node("Gather", "user_slack user_row", "slack"),
        _node("Add", "last_logit slack", "hidden"),
        _node("Slice", "found_value last end second", "last_found"),
        _node("LessOrEqual", "last_found hidden", "beatable"),
        _node("Less", "found count", "too_few"),
        _node("Or", "beatable too_few", "doubts"),
        _node("Cast", "doubts", "doubt_counts", to=TensorProto.INT64),
        _node("ReduceSum", "doubt_counts", "doubt_count", keepdims=0),
        _node("Cast", "doubt_count", "doubt", to=TensorProto.BOOL),
    ]


def _everything() -> onnx.GraphProto:
    """The best k of exact scores of all items."""
    nodes = [
        _node("Gemm", "vector item_vectors item_bias", "all", transB=1),
        _node("Expand", "minus_infinity how_many", "minus_infinities"),
        _node("ScatterND", "all excluded minus_infinities", "all_allowed"),
        _node("TopK", "all_allowed count", "all_value all_row"),
    ]
    return _branch("everything", nodes, "all_value", "all_row")


def _as_found() -> onnx.GraphProto:
    nodes = [_node("Identity", "found_value", "same_value"), _node("Identity", "found_row", "same_row")]
    return _branch("as_found", nodes, "same_value", "same_row")


def _branch(name: str, nodes: list[Any], value: str, row: str) -> onnx.GraphProto:
    outputs = [
        helper.make_tensor_value_info(value, TensorProto.FLOAT, ["n", "count"]),
        helper.make_tensor_value_info(row, TensorProto.INT64, ["n", "count"]),
    ]
    return helper.make_graph(nodes, name, [], outputs)


def _constants(
    tables: FoldedTables, codes: Codes, chosen: Candidates, vocabulary: Vocabulary
) -> dict[str, NDArray[Any]]:
    rows = len(codes.shift)
    width = -(-rows // LANES)
    padding = width * LANES - rows
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
        "by_lane": np.array([0, LANES, width]),
        "lane_starts": np.arange(LANES) * width,
        "base": np.array([chosen.base]),
        "slope": np.array([chosen.slope]),
        "most": np.array([min(MOST, width)]),
        "catalogue": np.array([len(vocabulary.items)]),
        "item_ids": vocabulary.items.values,
        "unknown_row": np.array(0),
        "one": np.array(1),
        "one_user": np.array([1]),
        "first": np.array([0]),
        "second": np.array([1]),
        "last": np.array([-1]),
        "end": np.array([np.iinfo(np.int64).max]),
    }


def _node(kind: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)
