"""Tables of several graphs in one file that onnxruntime maps into memory."""

from __future__ import annotations

import hashlib
from pathlib import Path

import onnx
from onnx import TensorProto

from cflightning_export.placing import require_space

PAGE = 4096
"""Where long tables begin: mappings do so at pages."""
LONG = 16 * PAGE
LINE = 64
"""Where shorter ones begin: whole pages between them would hold nothing."""
SMALL = 1024
"""Bytes; smaller tensors stay in the graph, where shape inference sees them."""


def share_weights(models: dict[str, onnx.ModelProto], path: Path) -> None:
    """Move the tables of all models into one file, equal bytes once; changes the models.

    Args:
        models: any number of graphs.
        path: the file to write, in the folder where the graphs will lie.

    Raises:
        OSError: it cannot be written, or there is no room for it.
    """
    moved: dict[tuple[int, bytes], list[TensorProto]] = {}  # by length and digest: tables take memory enough once
    for model in models.values():
        for tensor in model.graph.initializer:
            # The format has no external strings.
            if tensor.data_type != TensorProto.STRING and len(tensor.raw_data) >= SMALL:
                data = tensor.raw_data
                moved.setdefault((len(data), hashlib.sha256(data).digest()), []).append(tensor)
    require_space(path.parent, sum(length for length, _ in moved))
    with path.open("wb") as out:
        # Long ones first, so that few pages are filled up.
        for (length, _), tensors in sorted(moved.items(), key=lambda entry: entry[0][0], reverse=True):
            out.write(b"\0" * (-out.tell() % (PAGE if length >= LONG else LINE)))
            begin, data = out.tell(), tensors[0].raw_data
            out.write(data)
            for tensor in tensors:
                tensor.ClearField("raw_data")
                tensor.data_location = TensorProto.EXTERNAL
                for name, value in (("location", path.name), ("offset", begin), ("length", length)):
                    tensor.external_data.add(key=name, value=str(value))
