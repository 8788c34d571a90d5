"""Tables of half the bytes (fp16) or a quarter (int8 with a scale for each row), and what that changes.

The networks' tables are rounded first, so that graphs are built, and checked, from what is stored. Rows are looked up
and then scaled: scaling the table before a look-up costs a thousand times as much.
"""

from __future__ import annotations

import copy
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

Precision = Literal["fp32", "fp16", "int8"]
NARROWEST = 8
"""Columns of the narrowest table that is rounded: biases stay as they are."""
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
            if not isinstance(module, nn.Embedding) or module.embedding_dim < NARROWEST:
                continue
            values = module.weight.detach().numpy()
            if precision == "fp16":
                if np.abs(values).max() > np.finfo(np.float16).max:
                    raise ExportError(f"--precision fp16: must hold {name}, whose numbers reach 65,504; use int8")
                rounded = values.astype(np.float16).astype(np.float32)
            else:
                code, scale = _encode_rows(values)
                rounded = code.astype(np.float32) * scale
            with torch.no_grad():
                module.weight.copy_(torch.from_numpy(rounded))
            tables.append(rounded)
    return tables


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
    rounded_bytes = {table.tobytes() for table in rounding.tables}
    for model in models:
        kept, stored = [], {}
        for tensor in model.graph.initializer:
            if tensor.data_type == TensorProto.FLOAT and tensor.raw_data in rounded_bytes:
                stored[tensor.name] = _stored(tensor, rounding.precision)
            else:
                kept.append(tensor)
        del model.graph.initializer[:]
        model.graph.initializer.extend(kept + [part for parts in stored.values() for part in parts])
        _restore(model.graph, stored)


def _encode_rows(values: Table) -> tuple[NDArray[np.int8], Table]:
    """int8 codes [rows, dim] and float32 scales [rows, 1]."""
    scale = np.abs(values).max(1, keepdims=True) / np.float32(LARGEST_CODE)
    code = np.rint(np.divide(values, scale, out=np.zeros_like(values), where=scale > 0))
    return code.clip(-LARGEST_CODE, LARGEST_CODE).astype(np.int8), scale


def _stored(tensor: TensorProto, precision: Precision) -> list[TensorProto]:
    values = numpy_helper.to_array(tensor)
    if precision == "fp16":
        return [numpy_helper.from_array(values.astype(np.float16), f"{tensor.name}.half")]
    code, scale = _encode_rows(values)
    return [
        numpy_helper.from_array(code, f"{tensor.name}.code"),
        numpy_helper.from_array(scale, f"{tensor.name}.scale"),
    ]


def _restore(graph: onnx.GraphProto, stored: Mapping[str, list[TensorProto]]) -> None:
    """Put the nodes that make floats of stored tables before those that read them, in this graph and its branches."""
    nodes: list[onnx.NodeProto] = []
    whole: dict[str, str] = {}
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _restore(attribute.g, stored)
        for place, name in enumerate(node.input):
            if name not in stored:
                continue
            parts = [part.name for part in stored[name]]
            if node.op_type == "Gather" and place == 0:
                rows = [f"{node.output[0]}.{part}" for part in ("rows", "scales")][: len(parts)]
                nodes += [
                    helper.make_node("Gather", [part, node.input[1]], [row])
                    for part, row in zip(parts, rows, strict=True)
                ]
                nodes += _floats(rows, node.output[0])
                break
            if name not in whole:  # runtimes compute this once, when they load the graph
                whole[name] = f"{graph.name}.{name}"
                nodes += _floats(parts, whole[name])
            node.input[place] = whole[name]
        else:
            nodes.append(copy.deepcopy(node))
    del graph.node[:]
    graph.node.extend(nodes)


def _floats(parts: list[str], target: str) -> list[onnx.NodeProto]:
    cast = target if len(parts) == 1 else f"{target}.cast"
    nodes = [helper.make_node("Cast", parts[:1], [cast], to=TensorProto.FLOAT)]
    return nodes if len(parts) == 1 else [*nodes, helper.make_node("Mul", [cast, parts[1]], [target])]
