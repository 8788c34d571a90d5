"""Tables of several graphs in one file that onnxruntime maps into memory."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import onnx
from onnx import TensorProto

from cflightning_export.publish import require_space

PAGE = 4096
"""Where long tables begin: mappings do so at pages."""
LONG = 16 * PAGE
LINE = 64
"""Where shorter ones begin: whole pages between them would hold nothing."""
SMALL = 1024
"""Bytes; smaller tensors stay in the graph, where shape inference sees them."""


class Table(NamedTuple):
    """A table by its content, which two tables share if and only if they are equal."""

    length: int
    sha256: bytes


class SharedWeights:
    """The file of all tables, equal bytes once, which is complete when the block ends.

    Long tables are written as soon as a graph is added, so that they need not be held for all graphs; short ones behind
    them in the end, so that few pages are filled up.

    Args:
        path: the file to write, in the folder where the graphs will lie.
    """

    def __init__(self, path: Path) -> None:
        self.name, self.folder = path.name, path.parent
        self.out = path.open("wb")
        self.places: dict[Table, int] = {}
        self.short: dict[Table, tuple[bytes, list[TensorProto]]] = {}

    def __enter__(self) -> SharedWeights:
        return self

    def add(self, model: onnx.ModelProto) -> None:
        """Move the tables of a graph into the file; changes the graph, also when the block ends.

        Raises:
            OSError: the file cannot be written, or there is no room for it.
        """
        # The format has no external strings.
        for tensor in model.graph.initializer:
            if tensor.data_type == TensorProto.STRING or len(data := tensor.raw_data) < SMALL:
                continue
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            table = Table(len(data), hashlib.sha256(data).digest())
            if table.length < LONG:
                self.short.setdefault(table, (data, []))[1].append(tensor)
                continue
            if table not in self.places:
                require_space(self.folder, table.length)
                self.places[table] = self._write(data, PAGE)
            self._point(tensor, table)

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        try:
            if kind is None:
                for table, (data, tensors) in sorted(self.short.items(), key=lambda entry: -entry[0].length):
                    self.places[table] = self._write(data, LINE)
                    for tensor in tensors:
                        self._point(tensor, table)
        finally:
            self.out.close()

    def _write(self, data: bytes, step: int) -> int:
        """Append a table at a multiple of the step; where it begins."""
        self.out.write(b"\0" * (-self.out.tell() % step))
        begin = self.out.tell()
        self.out.write(data)
        return begin

    def _point(self, tensor: TensorProto, table: Table) -> None:
        for name, value in (("location", self.name), ("offset", self.places[table]), ("length", table.length)):
            tensor.external_data.add(key=name, value=str(value))


def share_weights(models: Mapping[str, onnx.ModelProto], path: Path) -> None:
    """Move the tables of all models into one file, as `SharedWeights` does.

    Args:
        models: any number of graphs.
        path: the file to write, in the folder where the graphs will lie.
    """
    with SharedWeights(path) as weights:
        for model in models.values():
            weights.add(model)
