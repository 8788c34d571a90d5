"""Tables of several graphs in one file that onnxruntime maps into memory."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto

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
    """
    moved: dict[bytes, list[TensorProto]] = {}
    for model in models.values():
        for tensor in model.graph.initializer:
            # The format has no external strings.
            if tensor.data_type != TensorProto.STRING and len(tensor.raw_data) >= SMALL:
                moved.setdefault(tensor.raw_data, []).append(tensor)
    with path.open("wb") as out:
        for data in sorted(moved, key=len, reverse=True):  # long ones first, so that few pages are filled up
            out.write(b"\0" * (-out.tell() % (PAGE if len(data) >= LONG else LINE)))
            for tensor in moved[data]:
                tensor.ClearField("raw_data")
                tensor.data_location = TensorProto.EXTERNAL
                for name, value in (("location", path.name), ("offset", out.tell()), ("length", len(data))):
                    tensor.external_data.add(key=name, value=str(value))
            out.write(data)
