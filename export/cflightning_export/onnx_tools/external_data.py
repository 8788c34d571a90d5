"""Tables of several graphs as external data in one file, which onnxruntime maps into memory."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import onnx
from onnx import TensorProto

from cflightning_export.publish import require_space

PAGE = 4096
"""Alignment in bytes of long tables: mappings begin at pages."""
MIN_PAGED = 16 * PAGE
"""Bytes of the smallest table that is aligned to pages."""
CACHE_LINE = 64
"""Alignment in bytes of shorter tables, between which whole pages would be wasted."""
MIN_EXTERNAL = 1024
"""Bytes of the smallest tensor that leaves its graph; smaller ones are needed by shape inference."""


class _Content(NamedTuple):
    """Identity of a table: two tables are equal if and only if these are."""

    length: int
    sha256: bytes


class SharedWeights:
    """The weights file, with equal tables once. It is complete when the block ends.

    Long tables are written when their graph is added, so that the tables of all graphs need not be held; short ones
    follow at the end, which wastes few pages.

    Args:
        path: the file to write, in the folder of the graphs.
    """

    def __init__(self, path: Path) -> None:
        self._name, self._folder = path.name, path.parent
        self._out = path.open("wb")
        self._offsets: dict[_Content, int] = {}
        self._short: dict[_Content, tuple[bytes, list[TensorProto]]] = {}

    def __enter__(self) -> SharedWeights:
        return self

    def add(self, model: onnx.ModelProto) -> None:
        """Move the tables of a graph into the file; the graph changes now and when the block ends.

        Raises:
            OSError: the file cannot be written, or there is no space for it.
        """
        for tensor in model.graph.initializer:
            # The format has no external strings.
            if tensor.data_type == TensorProto.STRING or len(data := tensor.raw_data) < MIN_EXTERNAL:
                continue
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            content = _Content(len(data), hashlib.sha256(data).digest())
            if content.length < MIN_PAGED:
                self._short.setdefault(content, (data, []))[1].append(tensor)
                continue
            if content not in self._offsets:
                require_space(self._folder, content.length)
                self._offsets[content] = self._write(data, PAGE)
            self._refer(tensor, content)

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        try:
            if kind is None:
                for content, (data, tensors) in sorted(self._short.items(), key=lambda entry: -entry[0].length):
                    self._offsets[content] = self._write(data, CACHE_LINE)
                    for tensor in tensors:
                        self._refer(tensor, content)
        finally:
            self._out.close()

    def _write(self, data: bytes, alignment: int) -> int:
        """Append a table at a multiple of the alignment, and return its offset."""
        self._out.write(b"\0" * (-self._out.tell() % alignment))
        offset = self._out.tell()
        self._out.write(data)
        return offset

    def _refer(self, tensor: TensorProto, content: _Content) -> None:
        for key, value in (("location", self._name), ("offset", self._offsets[content]), ("length", content.length)):
            tensor.external_data.add(key=key, value=str(value))
