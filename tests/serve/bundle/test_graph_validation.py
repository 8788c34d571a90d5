"""Limits of graphs: they refer only to files of the bundle and use only the operators of BUNDLE.md."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cflightning_serve import BundleError, Scorer
from cflightning_serve.bundle.graph_validation import OPERATOR_SETS, OPERATORS, validate_graph
from cflightning_serve.bundle.manifest import Manifest


def move_data(tensor, location, offset=0, length=None, key="location"):
    """Move the data of a tensor to another file."""
    tensor.ClearField("raw_data")
    tensor.ClearField("external_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key=key, value=location)
    tensor.external_data.add(key="offset", value=str(offset))
    if length is not None:
        tensor.external_data.add(key="length", value=str(length))
    return tensor


def external(location="secret"):
    """Return a tensor with four bytes of another file."""
    return move_data(TensorProto(name="external", data_type=TensorProto.FLOAT, dims=[1]), location, 0, 4)


def branch(*nodes, tables=()):
    output = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1])
    return helper.make_graph(
        [*nodes, helper.make_node("Identity", ["external"], ["out"])], "branch", [], [output], [*tables]
    )


def add(model, *nodes, tables=()):
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(tables)


def move_table(model, location, **options):
    table = next(one for one in model.graph.initializer if one.data_location == TensorProto.EXTERNAL)
    move_data(table, location, 0, 4 * int(np.prod(table.dims)), **options)


def in_a_branch(model):
    same = branch(tables=[external()])
    add(model, helper.make_node("If", ["known"], ["never"], then_branch=same, else_branch=same))


def in_branches_of_branches(model):
    inner = branch(tables=[external()])
    for _ in range(3):
        inner = branch(helper.make_node("If", ["known"], ["x"], then_branch=inner, else_branch=inner))
    add(model, helper.make_node("If", ["known"], ["never"], then_branch=inner, else_branch=inner))


def in_a_function(model):
    node = helper.make_node("Constant", [], ["y"], value=external())
    model.functions.append(helper.make_function("ai.onnx.ml", "F", [], ["y"], [node], model.opset_import))


def sparse(model):
    model.graph.sparse_initializer.append(
        helper.make_sparse_tensor(external(), numpy_helper.from_array(np.array([0]), "i"), [9])
    )


HOSTILE = {
    "parent folder": lambda model: move_table(model, "../secret"),
    "absolute": lambda model: move_table(model, "/etc/hostname"),
    "unnamed file": lambda model: move_table(model, "secret"),
    "link": lambda model: move_table(model, "link"),
    "dot": lambda model: move_table(model, "./weights.bin"),
    "memory": lambda model: move_table(model, "*/_ORT_MEM_ADDR_/*"),
    "other key": lambda model: move_table(model, "weights.bin", key="basepath"),
    "beyond the end": lambda model: move_data(model.graph.initializer[0], "weights.bin", 1 << 40),
    "another length": lambda model: move_data(model.graph.initializer[0], "weights.bin", 0, 4),
    "attribute": lambda model: add(model, helper.make_node("Constant", [], ["never"], value=external("weights.bin"))),
    "branch": in_a_branch,
    "branches": in_branches_of_branches,
    "function": in_a_function,
    "sparse": sparse,
    "sparse attribute": lambda model: add(
        model,
        helper.make_node(
            "Constant",
            [],
            ["never"],
            sparse_value=helper.make_sparse_tensor(external(), numpy_helper.from_array(np.array([0]), "i"), [9]),
        ),
    ),
    "training": lambda model: model.training_info.add(),
    "strings": lambda model: add(
        model, tables=[move_data(TensorProto(name="s", data_type=8, dims=[1]), "weights.bin")]
    ),
    "another domain": lambda model: add(model, helper.make_node("EPContext", [], ["n"], domain="com.microsoft")),
    "another operator": lambda model: add(model, helper.make_node("RandomNormal", [], ["n"], shape=[1])),
    "operator in a branch": lambda model: add(
        model,
        helper.make_node(
            "If",
            ["known"],
            ["n"],
            then_branch=branch(helper.make_node("RandomNormal", [], ["external"], shape=[1])),
            else_branch=branch(helper.make_node("RandomNormal", [], ["external"], shape=[1])),
        ),
    ),
    "operator set": lambda model: model.opset_import.add(domain="com.microsoft", version=1),
    "newer operators": lambda model: setattr(model.opset_import[0], "version", 21),
    "newer model": lambda model: setattr(model, "ir_version", 12),
    "options": lambda model: model.metadata_props.add(key="ort_config", value="{}"),
    "twice": lambda model: add(model, tables=[one for one in model.graph.initializer if one.external_data]),
}


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("change", HOSTILE)
def test_hostile_graphs_are_refused_with_valid_digests(bundles, copy, monkeypatch, change, verify):
    """Digests have no key, so an attacker can update them."""
    (copy.parent / "secret").write_bytes(b"\0" * 4096)
    path = copy / "score.onnx"
    model = onnx.load(path, load_external_data=False)
    HOSTILE[change](model)
    path.write_bytes(model.SerializeToString())
    bundles.reseal(copy)
    (copy / "secret").write_bytes(b"\0" * 4096)
    (copy / "link").symlink_to(copy.parent / "secret")
    monkeypatch.chdir(copy)  # where onnxruntime would search for the files
    with pytest.raises(BundleError, match=r"score\.onnx: .*; copy or export the bundle again") as caught:
        Scorer.load(copy, verify=verify)
    assert "onnxruntime cannot open" not in str(caught.value)  # refused before onnxruntime reads it
    assert len(str(caught.value)) < 500


def test_a_graph_is_never_read_in_the_format_of_onnxruntime(bundles, copy):
    path = copy / "score.onnx"
    model = onnx.load(path, load_external_data=False)
    model.producer_name = "ORTM, of all names"
    path.write_bytes(model.SerializeToString())
    assert path.read_bytes()[4:8] == b"ORTM"
    bundles.reseal(copy)
    assert Scorer.load(copy).score(10, 0)


def test_the_limits_equal_those_of_the_specification(repository):
    text = (repository / "serve" / "BUNDLE.md").read_text("utf-8")
    listed = text.split("Operators:")[1].split("\n\n")[0]
    assert set(re.findall(r"`([A-Z]\w+)`", listed)) == OPERATORS[""] | OPERATORS["ai.onnx.ml"]
    assert all(f"`{domain or 'ai.onnx'}` {version}" in text for domain, version in OPERATOR_SETS.items())


@pytest.mark.parametrize(
    "data",
    [b"", b"\x08" + b"\x80" * 1000, b"\x3a\xff\xff\xff\xff\x0f", b"\x0b", b"\x3a" + b"\x80" * 9 + b"\x01"],
    ids=["nothing", "endless number", "endless field", "group", "huge length"],
)  # fmt: skip
def test_bytes_that_are_not_a_model_are_refused(bundle, data):
    with pytest.raises(BundleError, match="score.onnx: must"):
        validate_graph(Path("score.onnx"), data, Manifest.read(bundle).files)
