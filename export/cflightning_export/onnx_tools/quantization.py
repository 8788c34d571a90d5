"""Tables in fp16, or in int8 with a scale for each row of the table (biases in fp16), and what that changes.

The tables of the networks are rounded first, so that graphs are built from, and verified against, what is stored.
Graphs look vectors up and then scale them: scaling the whole table first would cost a thousand times as much.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from cflightning.errors import ExportError
from cflightning.models.embedding_dot import encoder_of
from cflightning.models.network import ScoringNetwork
from cflightning_export.onnx_tools.id_table import MAX_WIDENED

Precision = Literal["fp32", "fp16", "int8"]
MIN_INT8_COLUMNS = 8
"""Columns of the narrowest table in int8: in narrower ones the scales would take as much space as fp16."""
MAX_SCALE_ERROR = 2**-10
"""Largest error of a scale in fp16, as a share of it or of the mean scale: fp16 is closer from 6e-5 to 65504."""
MAX_CODE = 127
NUM_PAIRS, NUM_USERS, LIST_LENGTH = 100_000, 1000, 10
"""Random pairs, random users and the length of their recommendations, from which the change is measured."""

Table = NDArray[np.float32]


class Change(NamedTuple):
    """Change of scores and recommendations by rounding.

    Attributes:
        rmse_change: root mean squared change of the scores of random known pairs, in rating units (of implicit
            feedback: in standard deviations of these scores). The RMSE on ratings of such pairs changes by no more.
        overlap: share of the top-10 recommendations of random known users, at most 1,000, that stays. In a linear
            autoencoder also of new users with these ten items each; the smaller share.
    """

    rmse_change: float
    overlap: float


class Rounding(NamedTuple):
    """Tables that were rounded, and what that changed."""

    precision: Precision
    tables: list[Table]
    change: Change

    def round(self, name: str, values: Table) -> Table:
        """Round one more table that is part of no network: float32 [rows, columns].

        Raises:
            ExportError: fp16 cannot represent a value.
        """
        self.tables.append(round_table(name, values, self.precision))
        return self.tables[-1]

    def summary(self) -> dict[str, str | float]:
        """Return the entry `precision` of the manifest."""
        change = {"rmse_change": round(self.change.rmse_change, 7), "overlap@10": round(self.change.overlap, 4)}
        return {"tables": self.precision, **change}


def round_tables(networks: Mapping[str, ScoringNetwork], precision: Precision) -> list[Table]:
    """Round the embeddings and encoders of networks, in place, to values that the precision represents exactly.

    Args:
        networks: name -> network; a network may have several names.
        precision: precision of the tables.

    Returns:
        The rounded tables.

    Raises:
        ExportError: fp16 cannot represent a value.
    """
    tables: list[Table] = []
    for network in {id(network): network for network in networks.values()}.values():
        found = {name: module.weight for name, module in network.named_modules() if isinstance(module, nn.Embedding)}
        encoder = encoder_of(network)
        for name, table in (found if encoder is None else found | {"encoder": encoder}).items():
            rounded = round_table(name, table.detach().numpy(), precision)
            with torch.no_grad():
                table.copy_(torch.from_numpy(rounded))
            tables.append(rounded)
    return tables


def round_table(name: str, values: Table, precision: Precision) -> Table:
    """Round a table, float32 [rows, columns], to values that the precision represents exactly.

    Raises:
        ExportError: fp16 cannot represent a value.
    """
    if precision == "int8" and values.shape[1] >= MIN_INT8_COLUMNS:
        codes, scale = _encode_rows(values)
        return codes.astype(np.float32) * scale.astype(np.float32)
    if np.abs(values).max() > np.finfo(np.float16).max:
        raise ExportError(f"--precision {precision}: values of {name} must not exceed 65504, but some do; use fp32")
    return values.astype(np.float16).astype(np.float32)


def measure_change(before: Mapping[str, ScoringNetwork], after: Mapping[str, ScoringNetwork]) -> Change:
    """Compare the scores of random known pairs and the recommendations of random known users.

    Args:
        before: "score" and "recommend" -> network as trained.
        after: the same with rounded tables.
    """
    rng = np.random.default_rng(0)
    old, new = before["score"], after["score"]
    with torch.inference_mode():
        user, item = (torch.from_numpy(rng.integers(1, num, NUM_PAIRS)) for num in (old.num_users, old.num_items))
        scores = old(user, item).double()
        rmse_change = float((new(user, item).double() - scores).square().mean().sqrt())
        if old.rating_range is None:
            rmse_change /= float(scores.std()) or 1.0
        old, new = before["recommend"], after["recommend"]
        count = min(LIST_LENGTH, old.num_items - 1)
        users = rng.permutation(np.arange(1, old.num_users))[:NUM_USERS]
        shared = [0, 0]
        for chunk in torch.split(torch.from_numpy(users), max(1, (1 << 23) // old.num_items)):
            best, rounded = (network.catalogue(chunk)[:, 1:].topk(count).indices for network in (old, new))
            shared[0] += _num_shared(best, rounded)
            lists = [_fold_in_lists(network, best + 1) for network in (old, new) if encoder_of(network) is not None]
            shared[1] += _num_shared(*(lists or (best, rounded)))
    return Change(rmse_change, min(shared) / (count * len(users)))


def _fold_in_lists(network: ScoringNetwork, items: Tensor) -> Tensor:
    """Return the best items of new users, folded in by the encoder from as many items each: int64 [n, count]."""
    encoder, tables = encoder_of(network), network.tables()
    assert encoder is not None
    assert tables is not None
    logits = encoder[items].sum(1) @ tables.item_vectors.T + tables.item_bias
    return logits[:, 1:].topk(items.shape[1]).indices


def _num_shared(first: Tensor, second: Tensor) -> int:
    """Return the number of items that are in both lists of a user: int64 [n, count] each."""
    return int((first[:, :, None] == second[:, None, :]).sum())


def round_within(
    networks: Mapping[str, ScoringNetwork], precision: Precision, max_change: float | None, min_overlap: float
) -> Rounding | None:
    """Round the tables of networks in place, unless they stay fp32, and compare the change with limits.

    Args:
        networks: "score" and "recommend" -> network.
        precision: precision of the tables.
        max_change: largest `Change.rmse_change`; None for .001 of the rating range, or .02 for implicit feedback.
        min_overlap: smallest `Change.overlap`.

    Raises:
        ExportError: a limit is exceeded, or there is no such precision.
    """
    if precision not in get_args(Precision):
        raise ExportError(f"--precision: must be fp32, fp16 or int8, got {precision!r}")
    if precision == "fp32":
        return None
    if max_change is None:
        rating_range = networks["score"].rating_range
        max_change = 0.02 if rating_range is None else 0.001 * (rating_range[1] - rating_range[0])
    before = copy.deepcopy(dict(networks))
    tables = round_tables(networks, precision)
    change = measure_change(before, networks)
    if not change.rmse_change <= max_change:
        raise ExportError(
            f"--precision {precision}: scores must change by at most {max_change:.2g}, change by "
            f"{change.rmse_change:.2g}; choose a finer precision, or a wider limit with --max-rmse-change"
        )
    if not change.overlap >= min_overlap:
        raise ExportError(
            f"--precision {precision}: top-{LIST_LENGTH} recommendations must keep {min_overlap:.1%} of their items, "
            f"keep {change.overlap:.1%}; choose a finer precision, or a lower limit with --min-overlap"
        )
    return Rounding(precision, tables, change)


def store_rounded(model: onnx.ModelProto, rounding: Rounding) -> None:
    """Store those tables of a graph that were rounded in their precision, in place."""
    rounded = {table.tobytes(): table for table in rounding.tables}
    kept: list[TensorProto] = []
    stored: dict[str, list[TensorProto]] = {}
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or tensor.raw_data not in rounded:
            kept.append(tensor)
            continue
        parts = _encode(rounded[tensor.raw_data], rounding.precision)
        shape = tuple(tensor.dims)  # a bias may also be stored as one row
        stored[tensor.name] = [
            numpy_helper.from_array(part.reshape(shape) if part.size == math.prod(shape) else part, name)
            for part, name in zip(parts, (f"{tensor.name}.code", f"{tensor.name}.scale"), strict=False)
        ]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept + [part for parts in stored.values() for part in parts])
    _insert_decoding(model.graph, stored)


def _encode(table: Table, precision: Precision) -> list[NDArray[np.generic]]:
    """Return the stored form of a rounded table: codes and scales, or fp16."""
    if precision == "int8" and table.shape[1] >= MIN_INT8_COLUMNS:
        return list(_encode_rows(table))
    return [table.astype(np.float16)]


def _encode_rows(values: Table) -> tuple[NDArray[np.int8], NDArray[np.floating]]:
    """Return codes, int8 [n, dim], and scales, [n, 1], in fp16 where that is close enough."""
    scale = np.abs(values).max(1, keepdims=True) / np.float32(MAX_CODE)
    with np.errstate(over="ignore"):
        half = scale.astype(np.float16)
    # Never rounded up, so that the largest code is 127 and encoding decoded values gives the same codes.
    half = np.where(half > scale, np.nextafter(half, np.float16(0)), half)
    stored = half if (scale - half <= MAX_SCALE_ERROR * np.maximum(scale, scale.mean())).all() else scale
    scale = stored.astype(np.float32)
    codes = np.rint(np.divide(values, scale, out=np.zeros_like(values), where=scale > 0))
    return codes.clip(-MAX_CODE, MAX_CODE).astype(np.int8), stored


class _Decoder:
    """Nodes that turn stored tables into floats, in one graph."""

    def __init__(self, graph: onnx.GraphProto, stored: Mapping[str, list[TensorProto]]) -> None:
        self.graph, self.stored = graph, stored
        self.nodes: list[onnx.NodeProto] = []
        self._decoded: dict[str, str] = {}

    def decode_table(self, name: str) -> str:
        """Decode a whole table, once: runtimes do it when they load the graph."""
        if name not in self._decoded:
            parts = [self._decode_part(part) for part in self.stored[name]]
            self._decoded[name] = parts[0] if len(parts) == 1 else self._add("Mul", parts, f"{self.graph.name}.{name}")
        return self._decoded[name]

    def decode_gather(self, gather: onnx.NodeProto) -> None:
        """Gather from the stored parts, and decode what was gathered; short columns are decoded as a whole."""
        target, parts = gather.output[0], self.stored[gather.input[0]]
        factors = []
        for part in parts:
            name = target if len(parts) == 1 else f"{target}.{part.name}"
            short = math.prod(part.dims) == max(part.dims) <= MAX_WIDENED
            node = copy.deepcopy(gather)
            node.input[0] = self._decode_part(part) if short else part.name
            node.output[0] = name if short or part.data_type == TensorProto.FLOAT else f"{name}.stored"
            self.nodes.append(node)
            factors.append(name if node.output[0] == name else self._cast(node.output[0], name))
        if len(factors) > 1:
            self._add("Mul", factors, target)

    def _decode_part(self, part: TensorProto) -> str:
        if part.data_type == TensorProto.FLOAT:
            return part.name
        if part.name not in self._decoded:
            self._decoded[part.name] = self._cast(part.name, f"{self.graph.name}.{part.name}")
        return self._decoded[part.name]

    def _cast(self, source: str, target: str) -> str:
        self.nodes.append(helper.make_node("Cast", [source], [target], to=TensorProto.FLOAT))
        return target

    def _add(self, operator: str, sources: list[str], target: str) -> str:
        self.nodes.append(helper.make_node(operator, sources, [target]))
        return target


def _insert_decoding(graph: onnx.GraphProto, stored: Mapping[str, list[TensorProto]]) -> None:
    """Insert the nodes that decode stored tables before the nodes that read them, in a graph and its inner graphs."""
    decoder = _Decoder(graph, stored)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _insert_decoding(attribute.g, stored)
        if node.op_type == "Gather" and node.input[0] in stored:
            decoder.decode_gather(node)
            continue
        decoded = copy.deepcopy(node)
        for position, name in enumerate(node.input):
            if name in stored:
                decoded.input[position] = decoder.decode_table(name)
        decoder.nodes.append(decoded)
    del graph.node[:]
    graph.node.extend(decoder.nodes)
