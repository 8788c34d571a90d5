"""Shared code of the graphs: their source, the entry of the registry, and a builder with signatures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto

from cflightning.data.ids import Ids
from cflightning.data.vocabulary import Vocabulary
from cflightning.models.network import RatingScale
from cflightning_export.contents.networks import BundleNetworks
from cflightning_export.contents.seen_items import SeenRows
from cflightning_export.fold_in.plan import FoldInSpecs
from cflightning_export.onnx_tools.builder import GraphBuilder, TensorType, Value
from cflightning_export.onnx_tools.id_table import IdTable
from cflightning_serve.bundle.manifest import IdType
from cflightning_serve.bundle.signatures import SIGNATURES, split_type

ELEMENTS: dict[str, int] = {
    "float": TensorProto.FLOAT, "int64": TensorProto.INT64, "bool": TensorProto.BOOL, "string": TensorProto.STRING,
}  # fmt: skip

MIN_TWO_PASS_ITEMS = 16_384
"""Smallest catalogue, the unknown item included, that is searched in two passes; measured (`make bench-search`)."""


class BundleSource(NamedTuple):
    """Source of the graphs of a bundle, from which they are built and verified.

    Attributes:
        networks: in evaluation mode, on the CPU.
        vocabulary: ids of users and items.
        seen: rows of the users; None where the bundle gets none.
        with_ratings: whether the bundle also gets the ratings of the training rows.
        fold_in: plan of fold-in; None where the networks are not dot products.
        min_two_pass_items: smallest catalogue, the unknown item included, that is searched in two passes.
    """

    networks: BundleNetworks
    vocabulary: Vocabulary
    seen: SeenRows | None = None
    with_ratings: bool = False
    fold_in: FoldInSpecs | None = None
    min_two_pass_items: int = MIN_TWO_PASS_ITEMS


class GraphFamily(NamedTuple):
    """The graphs of one module, an entry of the registry.

    Attributes:
        build: yields (name, graph) of the graphs that a bundle of this source has.
        verify: compares the graphs in a folder with the source; raises ExportError where they differ.
    """

    build: Callable[[BundleSource], Iterator[tuple[str, onnx.ModelProto]]]
    verify: Callable[[Path, BundleSource], None]


class TypedGraph(GraphBuilder):
    """A graph under construction, with the inputs and outputs of its signature.

    Args:
        name: name of the graph, a key of `SIGNATURES`.
        users: known users, if the signature has user ids.
        items: known items, if the signature has item ids.
        dim: latent factors, if the signature has vectors.
    """

    def __init__(self, name: str, *, users: Ids | None = None, items: Ids | None = None, dim: int = 0) -> None:
        super().__init__(name)
        self.dim = dim
        self._ids = {"user": users, "item": items}
        self._lengths = {"items": 0 if items is None else len(items), "dim": dim, "dim + 1": dim + 1}
        inputs, self._outputs = SIGNATURES[name].inputs, SIGNATURES[name].outputs
        self._values = {name: self.input(name, *self._type(tensor)) for name, tensor in inputs.items()}

    def __getitem__(self, name: str) -> Value:
        """Return an input of the graph."""
        return self._values[name]

    @cached_property
    def users(self) -> IdTable:
        """Ids of the known users."""
        return self._table("user")

    @cached_property
    def items(self) -> IdTable:
        """Ids of the known items."""
        return self._table("item")

    def finish(self, **outputs: Value) -> onnx.ModelProto:
        """Return the model with these outputs, which must be those of the signature."""
        assert set(outputs) == set(self._outputs), (set(outputs), set(self._outputs))
        return self.model({name: (outputs[name], self._type(tensor)) for name, tensor in self._outputs.items()})

    def _table(self, side: str) -> IdTable:
        ids = self._ids[side]
        assert ids is not None
        return IdTable(self, ids, side)

    def _type(self, tensor: str) -> TensorType:
        element, axes = split_type(tensor, _kind(self._ids["user"]), _kind(self._ids["item"]))
        return ELEMENTS[element], [int(axis) if axis.isdigit() else self._lengths.get(axis, axis) for axis in axes]


def _kind(ids: Ids | None) -> IdType:
    return "string" if ids is not None and ids.kind == "string" else "int64"


def to_scores(scale: RatingScale, logit: Value, *, fillers: bool = True) -> Value:
    """Convert logits to scores, as `RatingScale` does outside training.

    Args:
        scale: scale of the network.
        logit: float, any shape.
        fillers: whether logits may be -inf, which then stay -inf.
    """
    g, score = logit.graph, logit
    if scale.sigmoid:
        score = g.Sigmoid(score) * float(scale.high - scale.low) + float(scale.low)
    if scale.rating_range is None:
        return score
    low, high = scale.rating_range
    clipped = g.Clip(score, float(low), float(high))
    return g.Where(g.IsInf(logit, detect_positive=0), logit, clipped) if fillers else clipped


def best_items(ids: IdTable, logits: Value, k: Value, excluded_row: Value, excluded_item: Value,
               allowed: Value | None = None) -> tuple[Value, Value]:  # fmt: skip
    """Return the k items with the highest logits in each row, without the unknown item and the excluded ones.

    Args:
        ids: ids of the items.
        logits: float [n, 1 + items].
        k: int64 [1].
        excluded_row: int64 [m], the row of each exclusion.
        excluded_item: int64 [m], the index of each excluded item.
        allowed: bool [items], the only items that may be returned; None for all.

    Returns:
        Ids [n, count], and logits, float [n, count]: -inf marks fillers.
    """
    g, masked = logits.graph, -np.inf
    pairs = g.Concat(excluded_row.column(), excluded_item.column(), axis=1)
    known = g.ScatterND(logits, pairs, g.Expand(masked, excluded_item.shape()))[:, 1:]
    if allowed is not None:
        known = g.Where(allowed, known, masked)
    best, position = g.top_k(known, g.Min(k, [len(ids.ids)]))
    return ids.id(position), best
