"""The reader of ONNX files, compared with the onnx package."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from cflightning_serve.bundle.onnx_reader import read_outline


def nodes(graph):
    """Yield (domain, operator) of every node."""
    for node in graph.node:
        yield node.domain, node.op_type
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from nodes(inner)


def assert_equal(outline, model):
    """Assert that an outline agrees with the onnx package."""
    external = [tensor for tensor in model.graph.initializer if tensor.data_location == TensorProto.EXTERNAL]
    assert [(tensor.name, tensor.type, tensor.shape) for tensor in outline.external] == [
        (tensor.name, tensor.data_type, tuple(tensor.dims)) for tensor in external
    ]
    for read, tensor in zip(outline.external, external, strict=True):
        entries = {entry.key: entry.value for entry in tensor.external_data}
        assert read.location == entries["location"]
        assert read.offset == int(entries.get("offset", 0))
    assert outline.operators == set(nodes(model.graph))
    assert outline.metadata == {entry.key for entry in model.metadata_props}


def test_outlines_equal_those_of_onnx(bundle, string_bundle, choice_bundle):
    for folder in (bundle, string_bundle, choice_bundle):
        for path in folder.glob("*.onnx"):
            assert_equal(read_outline(path.read_bytes()), onnx.load(path, load_external_data=False))


def test_damaged_models_are_refused_or_read_like_onnx(bundle, string_bundle):
    rng = np.random.default_rng(0)
    read = refused = 0
    for n in range(1500):
        intact = (bundle if n % 2 else string_bundle).joinpath("score.onnx").read_bytes()
        at = int(rng.integers(len(intact)))
        if n % 3:
            data = intact[:at] + bytes([int(rng.integers(256))]) + intact[at + 1 :]
        else:
            data = intact[:at]
        try:
            outline = read_outline(data)
        except ValueError:
            refused += 1
            continue
        try:
            model = onnx.load_from_string(data)
        except Exception:  # then onnxruntime cannot read it either
            continue
        assert_equal(outline, model)
        read += 1
    assert read > 100
    assert refused > 100


def with_length(data):
    """Return bytes with their length in front."""
    length, head = len(data), []
    while length > 127:
        head.append(length & 127 | 128)
        length >>= 7
    return bytes([*head, length]) + data


def test_deeply_nested_graphs_are_refused():
    inner = b""
    for _ in range(2000):
        attribute = b"\x32" + with_length(inner)
        inner = b"\x0a" + with_length(b"\x2a" + with_length(attribute))
    with pytest.raises(ValueError, match="more than 8 deep"):
        read_outline(b"\x3a" + with_length(inner))


def test_ids_do_not_count_as_fields():
    """Strings and integers of a LabelEncoder are skipped, so that large tables of ids are read quickly."""
    count = 200_000
    node = helper.make_node(
        "LabelEncoder", ["a"], ["b"], domain="ai.onnx.ml",
        keys_strings=[f"B{n:09d}" for n in range(count)], values_int64s=list(range(count)),
    )  # fmt: skip
    graph = helper.make_graph([node], "g", [], [], [])
    data = helper.make_model(graph).SerializeToString()
    assert read_outline(data, max_fields=100).operators == {("ai.onnx.ml", "LabelEncoder")}
