"""Triton model repository: one model for each graph, run by the onnxruntime backend.

```
REPOSITORY/
  cflightning_recommend/config.pbtxt
  cflightning_recommend/1/model.onnx
  cflightning_recommend/1/weights.bin
  ...
```

onnxruntime opens external data only beside or below the model, and no links that lead elsewhere, so every model has a
weights file of its own. In the file system these are hard links to one file, whose memory-mapped pages all models
share; a copy to another machine or an object store turns them into one file for each graph that has tables.

Sources: github.com/triton-inference-server/server, docs/user_guide/model_repository.md and model_configuration.md;
github.com/triton-inference-server/onnxruntime_backend, README.md.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import TensorProto

from cflightning.errors import ExportError
from cflightning_export.layouts.source import Bundle
from cflightning_serve.bundle.strict_json import Json

PREFIX = "cflightning_"
"""Prefix of the names of the models; the name of the graph follows."""
VERSION = "1"

_TYPES = {  # supported by the backend
    TensorProto.BOOL: "TYPE_BOOL",
    TensorProto.UINT8: "TYPE_UINT8",
    TensorProto.UINT16: "TYPE_UINT16",
    TensorProto.UINT32: "TYPE_UINT32",
    TensorProto.UINT64: "TYPE_UINT64",
    TensorProto.INT8: "TYPE_INT8",
    TensorProto.INT16: "TYPE_INT16",
    TensorProto.INT32: "TYPE_INT32",
    TensorProto.INT64: "TYPE_INT64",
    TensorProto.FLOAT16: "TYPE_FP16",
    TensorProto.FLOAT: "TYPE_FP32",
    TensorProto.DOUBLE: "TYPE_FP64",
    TensorProto.STRING: "TYPE_STRING",
}

# No axis is common to all inputs, so Triton must not add a batch axis (max_batch_size 0). Threads are set because
# onnxruntime would start one for each core of the machine, not of the container.
_CONFIG = """\
name: "{name}"
backend: "onnxruntime"
max_batch_size: 0
version_policy {{ latest {{ num_versions: 1 }} }}
instance_group {{ kind: KIND_CPU count: 1 }}
parameters {{ key: "intra_op_thread_count" value {{ string_value: "1" }} }}
parameters {{ key: "inter_op_thread_count" value {{ string_value: "1" }} }}
"""


def write(bundle: Bundle, folder: Path) -> None:
    """Write the repository.

    Args:
        bundle: a finished bundle.
        folder: an empty folder.

    Raises:
        ExportError: the backend does not support an input or output of a graph, or tables lie outside the bundle.
    """
    weights: dict[str, Path] = {}  # file of the bundle -> its first copy in the repository
    for graph, path in bundle.graphs.items():
        model = onnx.load(path, load_external_data=False)
        name = f"{PREFIX}{graph}"
        version = folder / name / VERSION
        version.mkdir(parents=True)
        (version.parent / "config.pbtxt").write_text(_config(name, model), encoding="utf-8")
        shutil.copyfile(path, version / "model.onnx")
        for file in sorted(_external_files(model.graph)):
            if file not in bundle.manifest["files"]:
                raise ExportError(f"{path}: must keep its tables in files of the bundle, has some in {file!r}")
            if file in weights:
                _link(weights[file], version / file)
            else:
                weights[file] = Path(shutil.copyfile(bundle.folder / file, version / file))


def next_steps(target: Path, manifest: dict[str, Json], user: int | str) -> list[str]:
    """Return the commands that start the server, and request ten recommendations for a user."""
    id_type = {"int64": "INT64", "string": "BYTES"}
    inputs: tuple[tuple[str, list[int], str, list[int | str]], ...] = (
        ("user", [1], id_type[manifest["ids"]["user"]], [user]),
        ("k", [1], "INT64", [10]),
        ("exclude_user", [0], "INT64", []),
        ("exclude_item", [0], id_type[manifest["ids"]["item"]], []),
    )
    request = {"inputs": [{"name": n, "shape": s, "datatype": t, "data": d} for n, s, t, d in inputs]}
    return [
        f"tritonserver --model-repository {shlex.quote(str(target))}",
        f"curl localhost:8000/v2/models/{PREFIX}recommend/infer -d {shlex.quote(json.dumps(request))}",
    ]


def _config(name: str, model: onnx.ModelProto) -> str:
    text = _CONFIG.format(name=name)
    for side, values in (("input", model.graph.input), ("output", model.graph.output)):
        for value in values:
            tensor = value.type.tensor_type
            # A free length has a name or no value in the graph, and is -1 for Triton.
            lengths = [axis.dim_value if axis.HasField("dim_value") else -1 for axis in tensor.shape.dim]
            if tensor.elem_type not in _TYPES or not lengths:
                got = TensorProto.DataType.Name(tensor.elem_type)
                raise ExportError(
                    f"{name}: {side} {value.name!r} must be of a type that Triton supports, with at least one axis, "
                    f"is {got} {lengths}; this is a bug, please report it"
                )
            text += (
                f'{side} {{ name: "{value.name}" data_type: {_TYPES[tensor.elem_type]} '
                f"dims: [ {', '.join(map(str, lengths))} ] }}\n"
            )
    return text


def _external_files(graph: onnx.GraphProto) -> set[str]:
    """Return the names of the files that hold tensors of a graph."""
    return {
        entry.value
        for tensor in _tensors(graph)
        if tensor.data_location == TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }


def _tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
