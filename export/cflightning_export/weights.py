"""Tables of several graphs in one file that onnxruntime maps into memory."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto

PAGE = 4096  # mappings begin at pages
SMALL = 1024  # bytes; smaller tensors stay in the graph, where shape inference sees them


def share_weights(models: dict[str, onnx.ModelProto], path: Path) -> None:
    """Move the tables of all models into one file, equal ones once; changes the models.

    Args:
        models: any number of graphs.
        path: the file to write, in the folder where the graphs will lie.
    """
    written: dict[tuple[int, tuple[int, ...], bytes], tuple[int, int]] = {}
    with path.open("wb") as out:
        for model in models.values():
            for tensor in model.graph.initializer:
                if tensor.data_type == TensorProto.STRING:  # the format has no external strings
                    continue
                data = tensor.raw_data
                if len(data) < SMALL:
                    continue
                key = (tensor.data_type, tuple(tensor.dims), data)
                if key not in written:
                    out.write(b"\0" * (-out.tell() % PAGE))
                    written[key] = out.tell(), len(data)
                    out.write(data)
                offset, length = written[key]
                tensor.ClearField("raw_data")
                tensor.data_location = TensorProto.EXTERNAL
                for name, value in (("location", path.name), ("offset", str(offset)), ("length", str(length))):
                    tensor.external_data.add(key=name, value=value)
