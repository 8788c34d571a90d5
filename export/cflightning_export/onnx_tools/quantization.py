"""Tables of half the bytes (fp16) or a quarter (int8 with a scale for each row; biases fp16), and what that changes.

The networks' tables are rounded first, so that graphs are built, and checked, from what is stored. Rows are looked up
and then scaled: scaling the table before a look-up costs a thousand times as much.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from cflightning.errors import ExportError
from cflightning.models.network import RatingNetwork
from cflightning_export.onnx_tools.builder import SHORT

Precision = Literal["fp32", "fp16", "int8"]
NARROWEST = 8
"""Columns of the narrowest table that is int8: a scale for each row would take as much as biases in half floats."""
NEAR = 2**-10
"""Share of a scale, or of a mean one, by which half floats may be off: all of 6e-5 to 65,504 are by less."""
LARGEST_CODE = 127
PAIRS, USERS, LENGTH = 100_000, 1000, 10

Table = NDArray[np.float32]


class Change(NamedTuple):
    """What rounding does to the answers.

    Attributes:
        rmse_change: root mean squared change of the scores of random known pairs, in rating units (of choices: in
            standard deviations of these scores). The RMSE on ratings of such pairs changes by no more.
        overlap: share of the top 10 of random known users, at most 1,000, that stays in it.
    """

    rmse_change: float
    overlap: float


class Rounding(NamedTuple):
    """Tables that were rounded, and what it changed."""

    precision: Precision
    tables: list[Table]
    change: Change

    def round(self, name: str, values: Table) -> Table:
        """Round one more table, which no network has: float32 [rows, columns].

        Raises:
            ExportError: there are numbers that fp16 has no room for.
        """
        self.tables.append(round_table(name, values, self.precision))
        return self.tables[-1]

    def facts(self) -> dict[str, Any]:
        """The manifest's `precision`."""
        figures = {"rmse_change": round(self.change.rmse_change, 7), "overlap@10": round(self.change.overlap, 4)}
        return {"tables": self.precision, **figures}


def round_tables(networks: Mapping[str, RatingNetwork], precision: Precision) -> list[Table]:
    """Give the embeddings of networks, in place, values that the precision holds exactly.

    Args:
        networks: question -> network; one may answer several.
        precision: of the tables.

    Returns:
        The rounded tables.

    Raises:
        ExportError: a table has numbers that fp16 has no room for.
    """
    tables: list[Table] = []
    for network in {id(network): network for network in networks.values()}.values():
        for name, module in network.named_modules():
            if isinstance(module, nn.Embedding):
                rounded = round_table(name, module.weight.detach().numpy(), precision)
                with torch.no_grad():
                    module.weight.copy_(torch.from_numpy(rounded))
                tables.append(rounded)
    return tables


def round_table(name: str, values: Table, precision: Precision) -> Table:
    """Values that the precision holds exactly: float32 [rows, columns].

    Args:
        name: of the table.
        values: float32 [rows, columns].
        precision: of the tables.

    Raises:
        ExportError: there are numbers that fp16 has no room for.
    """
    if precision == "int8" and values.shape[1] >= NARROWEST:
        code, scale = _encode_rows(values)
        return code.astype(np.float32) * scale.astype(np.float32)
    if np.abs(values).max() > np.finfo(np.float16).max:
        raise ExportError(f"--precision {precision}: must hold {name}, whose numbers reach 65,504; use fp32")
    return values.astype(np.float16).astype(np.float32)


def change(before: Mapping[str, RatingNetwork], after: Mapping[str, RatingNetwork], seed: int = 0) -> Change:
    """Compare the scores of random known pairs and the lists of random known users.

    Args:
        before: question -> network with the tables of training.
        after: the same with rounded tables.
        seed: of the pairs and users.
    """
    rng = np.random.default_rng(seed)
    old, new = before["score"], after["score"]
    with torch.inference_mode():
        user, item = (torch.from_numpy(rng.integers(1, rows, PAIRS)) for rows in (old.num_users, old.num_items))
        scores = old(user, item).double()
        off = float((new(user, item).double() - scores).square().mean().sqrt())
        if old.rating_range is None:
            off /= float(scores.std()) or 1.0
        old, new = before["recommend"], after["recommend"]
        count = min(LENGTH, old.num_items - 1)
        users = rng.permutation(np.arange(1, old.num_users))[:USERS]
        shared = 0
        for row in torch.split(torch.from_numpy(users), max(1, (1 << 23) // old.num_items)):
            lists = [network.catalogue(row)[:, 1:].topk(count).indices for network in (old, new)]
            shared += int((lists[0][:, :, None] == lists[1][:, None, :]).sum())
    return Change(off, shared / (count * len(users)))


def round_within(
    networks: Mapping[str, RatingNetwork], precision: Precision, max_change: float | None, min_overlap: float
) -> Rounding | None:
    """Round the tables of networks in place, unless they stay fp32, and hold what that changes against limits.

    Args:
        networks: question -> network.
        precision: of the tables.
        max_change: the most that `Change.rmse_change` may be; None for .001 of the rating range, or of choices .02.
        min_overlap: the least that `Change.overlap` may be.

    Raises:
        ExportError: a limit is passed, or there is no such precision.
    """
    if precision not in get_args(Precision):
        raise ExportError(f"--precision: must be fp32, fp16 or int8, got {precision!r}")
    if precision == "fp32":
        return None
    if max_change is None:
        limits = networks["score"].rating_range
        max_change = 0.02 if limits is None else 0.001 * (limits[1] - limits[0])
    before = copy.deepcopy(dict(networks))
    tables = round_tables(networks, precision)
    found = change(before, networks)
    if not found.rmse_change <= max_change:
        raise ExportError(
            f"--precision {precision}: scores must change by at most {max_change:.2g}, change by "
            f"{found.rmse_change:.2g}; choose a finer precision, or a wider limit with --max-rmse-change"
        )
    if not found.overlap >= min_overlap:
        raise ExportError(
            f"--precision {precision}: top-{LENGTH} lists must keep {min_overlap:.1%} of their items, keep "
            f"{found.overlap:.1%}; choose a finer precision, or a wider limit with --min-overlap"
        )
    return Rounding(precision, tables, found)


def store(models: Iterable[onnx.ModelProto], rounding: Rounding) -> None:
    """Store the tables of graphs, wherever they are one of the rounded, in the precision; changes the models."""
    rounded = {table.tobytes(): table for table in rounding.tables}
    for model in models:
        kept, stored = [], {}
        for tensor in model.graph.initializer:
            if tensor.data_type == TensorProto.FLOAT and tensor.raw_data in rounded:
                parts = _encode(rounded[tensor.raw_data], rounding.precision)
                shape = tuple(tensor.dims)  # a bias may also lie there as a row
                stored[tensor.name] = [
                    numpy_helper.from_array(part.reshape(shape) if part.size == math.prod(shape) else part, name)
                    for part, name in zip(parts, (f"{tensor.name}.code", f"{tensor.name}.scale"), strict=False)
                ]
            else:
                kept.append(tensor)
        del model.graph.initializer[:]
        model.graph.initializer.extend(kept + [part for parts in stored.values() for part in parts])
        _restore(model.graph, stored)


def _encode(table: Table, precision: Precision) -> list[NDArray[Any]]:
    """What is stored of a rounded table: codes and scales, or half floats."""
    if precision == "int8" and table.shape[1] >= NARROWEST:
        return list(_encode_rows(table))
    return [table.astype(np.float16)]


def _encode_rows(values: Table) -> tuple[NDArray[np.int8], NDArray[np.floating[Any]]]:
    """int8 codes [rows, dim] and scales [rows, 1], in half floats where these come near enough."""
    scale = np.abs(values).max(1, keepdims=True) / np.float32(LARGEST_CODE)
    with np.errstate(over="ignore"):
        half = scale.astype(np.float16)
    # Not rounded up, so that the largest code is 127 and the same numbers are coded in the same way again.
    half = np.where(half > scale, np.nextafter(half, np.float16(0)), half)
    stored = half if (scale - half <= NEAR * np.maximum(scale, scale.mean())).all() else scale
    scale = stored.astype(np.float32)
    code = np.rint(np.divide(values, scale, out=np.zeros_like(values), where=scale > 0))
    return code.clip(-LARGEST_CODE, LARGEST_CODE).astype(np.int8), stored


class _Floats:
    """Adds nodes that make floats of what is stored, in one graph."""

    def __init__(self, graph: onnx.GraphProto, stored: Mapping[str, list[TensorProto]]) -> None:
        self.graph, self.stored = graph, stored
        self.nodes: list[onnx.NodeProto] = []
        self.made: dict[str, str] = {}

    def whole(self, name: str) -> str:
        """A table as a whole, once: runtimes compute it when they load the graph."""
        if name not in self.made:
            parts = [self.part(part) for part in self.stored[name]]
            self.made[name] = parts[0] if len(parts) == 1 else self.add("Mul", parts, f"{self.graph.name}.{name}")
        return self.made[name]

    def part(self, part: TensorProto) -> str:
        """Codes or scales as floats, likewise."""
        if part.data_type == TensorProto.FLOAT:
            return part.name
        if part.name not in self.made:
            self.made[part.name] = self.cast(part.name, f"{self.graph.name}.{part.name}")
        return self.made[part.name]

    def rows(self, gather: onnx.NodeProto) -> None:
        """What a node looks up: first the rows, then floats of them. Of a short column floats are made as a whole."""
        target, parts = gather.output[0], self.stored[gather.input[0]]
        found = []
        for part in parts:
            name = target if len(parts) == 1 else f"{target}.{part.name}"
            short = math.prod(part.dims) == max(part.dims) <= SHORT
            row = copy.deepcopy(gather)
            row.input[0] = self.part(part) if short else part.name
            row.output[0] = name if short or part.data_type == TensorProto.FLOAT else f"{name}.stored"
            self.nodes.append(row)
            found.append(name if row.output[0] == name else self.cast(row.output[0], name))
        if len(found) > 1:
            self.add("Mul", found, target)

    def cast(self, source: str, target: str) -> str:
        return self.add("Cast", [source], target, to=TensorProto.FLOAT)

    def add(self, op: str, sources: list[str], target: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, sources, [target], **attributes))
        return target


def _restore(graph: onnx.GraphProto, stored: Mapping[str, list[TensorProto]]) -> None:
    """Put the nodes that make floats of stored tables before those that read them, in this graph and its branches."""
    floats = _Floats(graph, stored)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _restore(attribute.g, stored)
        if node.op_type == "Gather" and node.input[0] in stored:
            floats.rows(node)
            continue
        kept = copy.deepcopy(node)
        for place, name in enumerate(node.input):
            if name in stored:
                kept.input[place] = floats.whole(name)
        floats.nodes.append(kept)
    del graph.node[:]
    graph.node.extend(floats.nodes)
