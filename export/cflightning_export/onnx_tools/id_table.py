"""Translation between ids and indices inside a graph.

Integer ids that lie close together are looked up in a table with an entry for every integer among them; other ids are
the keys of a LabelEncoder.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from cflightning.data.ids import Ids
from cflightning_export.onnx_tools.builder import GraphBuilder, Value

MAX_SPARSITY = 8
"""Table entries for each id, at most: so many take less space than the keys of the LabelEncoders they replace."""
MAX_WIDENED = 1 << 16
"""Entries of the longest table that is widened to int64 as a whole when a runtime loads the graph."""


class DenseTable(NamedTuple):
    """The indices of ids that lie close together.

    Attributes:
        first: the integer of entry 0.
        last: the largest id.
        indices: int64 [last - first + 2]; 0 where there is no id, and in the last entry, which stands for every integer
            out of range.
    """

    first: int
    last: int
    indices: NDArray[np.int64]


def dense_table(ids: Ids) -> DenseTable | None:
    """Return the table of integer ids, from 0 where they begin near it; None for strings and for sparse integers."""
    if ids.kind != "int64" or not len(ids):
        return None
    low, last = int(ids.values[0]), int(ids.values[-1])
    if last - low >= MAX_SPARSITY * len(ids) or low == -(2**63) or last == 2**63 - 1:  # first - 1, last + 1 must exist
        return None
    first = 0 if 0 <= low <= len(ids) else low
    index = np.zeros(last - first + 2, np.int64)
    index[ids.values - first] = np.arange(1, len(ids) + 1)
    return DenseTable(first, last, index)


def smallest_dtype(values: NDArray[np.int64]) -> type[np.integer]:
    """Return the first of uint16, int32 and int64 that holds all values."""
    for dtype in (np.uint16, np.int32):
        if np.iinfo(dtype).min <= values.min(initial=0) and values.max(initial=0) <= np.iinfo(dtype).max:
            return dtype
    return np.int64


class IdTable:
    """The ids of users or items as constants of a graph.

    Args:
        graph: the graph that reads them.
        ids: known ids.
        side: "user" or "item", which names the constants.
        max_widened: entries of the longest table that is widened as a whole; the entries that are read from a longer
            one are widened instead, so that it stays in the weights file that all graphs share.
    """

    def __init__(self, graph: GraphBuilder, ids: Ids, side: str, max_widened: int = MAX_WIDENED) -> None:
        self.graph, self.ids, self.side, self.max_widened = graph, ids, side, max_widened
        self._dense = dense_table(ids)
        self._widened: dict[str, Value] = {}

    def index(self, ids: Value) -> Value:
        """Return the indices of ids, int64 [n]; 0 for unknown ones."""
        if self._dense is None:
            kind = "int64s" if self.ids.kind == "int64" else "strings"
            keys, indices = self.ids.values.tolist(), list(range(1, len(self.ids) + 1))
            encoder = {f"keys_{kind}": keys, "values_int64s": indices, "default_int64": 0}
            return self.graph.add_node("LabelEncoder", [ids], 1, encoder, domain="ai.onnx.ml")[0]
        entry = self.graph.Clip(ids, self._dense.first - 1, self._dense.last + 1)  # entry -1 is the last one
        if self._dense.first:
            entry = entry - self._dense.first
        return self._read(f"{self.side}_indices", self._dense.indices, lambda table: table[entry])

    def id(self, position: Value) -> Value:
        """Return the ids at positions, int64 [any shape], of the sorted ids; position -1 gives an arbitrary id."""
        return self._read(f"{self.side}_ids", self.ids.values, lambda table: table[position])

    def between(self, begin: Value, end: Value) -> Value:
        """Return the ids at the positions from begin to end, int64 [1] each."""
        return self._read(f"{self.side}_ids", self.ids.values, lambda table: table[begin:end])

    def _read(self, name: str, values: NDArray[np.int64], read: Callable[[Value], Value]) -> Value:
        """Return entries of a constant, which is stored in as few bits as hold its values."""
        if values.dtype == object:
            return read(self.graph.constant(name, values, object))
        table = self.graph.constant(name, values, smallest_dtype(values))
        if len(values) > self.max_widened:
            return read(table).cast(TensorProto.INT64)
        if name not in self._widened:
            self._widened[name] = table.cast(TensorProto.INT64)
        return read(self._widened[name])
