"""The repository is what Triton documents, and each of its models runs separately."""

import json
import re
import shlex
import shutil

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from cflightning.errors import ExportError
from cflightning_export.layouts import triton
from cflightning_export.layouts.registry import write_layout

NAMES = {  # onnxruntime's name of a type -> Triton's, model_config.proto of triton-inference-server/common
    "tensor(int64)": "TYPE_INT64",
    "tensor(string)": "TYPE_STRING",
    "tensor(float)": "TYPE_FP32",
    "tensor(bool)": "TYPE_BOOL",
}


@pytest.fixture(scope="module")
def repository(bundle, tmp_path_factory):
    return write_layout(bundle, tmp_path_factory.mktemp("triton") / "models", "triton")


def parse(text):
    """Protobuf's text format, as much as a configuration needs: a list of (field, value or list)."""
    tokens = re.findall(r'"[^"\n]*"|[\w.-]+|[{}\[\]:,]', text)
    assert "".join(tokens) == re.sub(r'\s+(?=(?:[^"]*"[^"]*")*[^"]*$)', "", text)  # nothing was skipped

    def message(end):
        fields = []
        while tokens[0] != end:
            name = tokens.pop(0)
            assert re.fullmatch(r"[a-z_]+", name)
            if tokens[0] == ":":
                tokens.pop(0)
            fields.append((name, value()))
            if tokens[0] == ",":
                tokens.pop(0)
        tokens.pop(0)
        return fields

    def value():
        first = tokens.pop(0)
        if first == "{":
            return message("}")
        if first == "[":
            values = []
            while tokens[0] != "]":
                values.append(value())
                if tokens[0] == ",":
                    tokens.pop(0)
            tokens.pop(0)
            return values
        return json.loads(first) if first[0] in '"-0123456789' else first

    tokens.append("end")
    return message("end")


def one(fields, name):
    [value] = [value for key, value in fields if key == name]
    return value


def session(model):
    return ort.InferenceSession(model / "1" / "model.onnx", providers=["CPUExecutionProvider"])


def test_one_model_for_each_graph(repository):
    folders = [path for path in repository.iterdir() if path.is_dir()]
    assert {path.name for path in folders} == {f"cflightning_{name}" for name in ("score", "recommend", "similar")}
    for path in folders:
        assert sorted(inner.name for inner in path.iterdir()) == ["1", "config.pbtxt"]


@pytest.mark.parametrize("question", ["score", "recommend", "similar"])
def test_the_configuration_is_the_graphs(repository, question):
    model = repository / f"cflightning_{question}"
    config = parse((model / "config.pbtxt").read_text("utf-8"))
    assert one(config, "name") == model.name
    assert one(config, "backend") == "onnxruntime"
    assert one(config, "max_batch_size") == 0
    assert one(config, "version_policy") == [("latest", [("num_versions", 1)])]
    assert one(config, "instance_group") == [("kind", "KIND_CPU"), ("count", 1)]
    threads = {
        one(value, "key"): one(one(value, "value"), "string_value") for key, value in config if key == "parameters"
    }
    assert threads == {"intra_op_thread_count": "1", "inter_op_thread_count": "1"}
    graph = session(model)
    for side, arguments in (("input", graph.get_inputs()), ("output", graph.get_outputs())):
        got = [(one(v, "name"), one(v, "data_type"), one(v, "dims")) for key, v in config if key == side]
        lengths = [[axis if isinstance(axis, int) else -1 for axis in argument.shape] for argument in arguments]
        assert got == [(a.name, NAMES[a.type], dims) for a, dims in zip(arguments, lengths, strict=True)]


def test_known_dims(repository):
    config = parse((repository / "cflightning_score" / "config.pbtxt").read_text("utf-8"))
    outputs = {one(value, "name"): one(value, "dims") for key, value in config if key == "output"}
    assert outputs == {"score": [-1], "known": [-1, 2]}
    config = parse((repository / "cflightning_recommend" / "config.pbtxt").read_text("utf-8"))
    inputs = {one(value, "name"): one(value, "dims") for key, value in config if key == "input"}
    assert inputs == {"user": [-1], "k": [1], "exclude_user": [-1], "exclude_item": [-1]}


def test_tritons_own_protobuf_reads_it(repository):
    pb = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    text_format = pytest.importorskip("google.protobuf.text_format")
    for path in repository.glob("*/config.pbtxt"):
        config = text_format.Parse(path.read_text("utf-8"), pb.ModelConfig())
        assert config.name == path.parent.name
        assert config.max_batch_size == 0
        assert config.instance_group[0].kind == pb.ModelInstanceGroup.KIND_CPU
        names = [argument.name for argument in session(path.parent).get_inputs()]
        assert [tensor.name for tensor in config.input] == names


def test_weights_are_one_file_in_the_file_system(repository):
    files = {path.stat().st_ino for path in repository.glob("*/1/weights.bin")}
    assert len(files) == 1
    assert len(list(repository.glob("*/1/weights.bin"))) == 3


def test_without_hard_links_they_are_copied(bundle, tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError("no links here")

    monkeypatch.setattr(triton.os, "link", refuse)
    folder = write_layout(bundle, tmp_path / "models", "triton")
    files = list(folder.glob("*/1/weights.bin"))
    assert len({path.stat().st_ino for path in files}) == 3
    assert {path.read_bytes() for path in files} == {(bundle / "weights.bin").read_bytes()}


def test_each_model_answers_by_itself(tables, repository, tmp_path):
    alone = {}
    for name in ("score", "recommend", "similar"):
        alone[name] = session(shutil.copytree(repository / f"cflightning_{name}", tmp_path / name))
    users, items = tables.user_ids, tables.item_ids
    [score] = alone["score"].run(["score"], {"user": users, "item": items[: len(users)]})
    np.testing.assert_allclose(score, tables.score(users, items[: len(users)]), atol=1e-5)
    feeds = {"user": users[:1], "k": np.array([4]), "exclude_user": np.array([0]), "exclude_item": items[1:2]}
    assert alone["recommend"].run(["item"], feeds)[0][0].tolist() == tables.recommend(users[0], 4, items[1:2].tolist())
    [similar] = alone["similar"].run(["similar"], {"item": items[:1], "k": np.array([1])})
    cosines = tables.cosines(items[0])
    cosines[0] = -np.inf
    assert similar.tolist() == [[items[cosines.argmax()]]]


def test_further_graphs_are_models_too(bundles, copy, tmp_path):
    """Whatever the manifest names; types and axes are the graph's own."""
    inputs = [
        helper.make_tensor_value_info("allowed", TensorProto.BOOL, [None]),
        helper.make_tensor_value_info("wide", TensorProto.FLOAT16, ["n", 3]),
    ]
    outputs = [helper.make_tensor_value_info("same", TensorProto.BOOL, [None])]
    graph = helper.make_graph([helper.make_node("Identity", ["allowed"], ["same"])], "more", inputs, outputs)
    (copy / "more.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    manifest = json.loads((copy / "manifest.json").read_text("utf-8"))
    bundles.write_manifest(copy, manifest | {"graphs": manifest["graphs"] | {"fold_in": "more.onnx"}})
    folder = write_layout(copy, tmp_path / "models", "triton") / "cflightning_fold_in"
    assert (folder / "1" / "model.onnx").read_bytes() == (copy / "more.onnx").read_bytes()
    assert not (folder / "1" / "weights.bin").exists()  # it needs none
    config = parse((folder / "config.pbtxt").read_text("utf-8"))
    assert [value for key, value in config if key == "input"] == [
        [("name", "allowed"), ("data_type", "TYPE_BOOL"), ("dims", [-1])],
        [("name", "wide"), ("data_type", "TYPE_FP16"), ("dims", [-1, 3])],
    ]


def rewrite(bundles, folder, change):
    model = onnx.load(folder / "score.onnx", load_external_data=False)
    change(model.graph)
    (folder / "score.onnx").write_bytes(model.SerializeToString())
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    bundles.write_manifest(folder, manifest)


def test_a_type_that_the_backend_does_not_take(bundles, copy, tmp_path):
    def change(graph):
        graph.output[0].type.tensor_type.elem_type = TensorProto.BFLOAT16

    rewrite(bundles, copy, change)
    with pytest.raises(ExportError, match="cflightning_score: output 'score' .* is BFLOAT16"):
        write_layout(copy, tmp_path / "models", "triton")


def test_a_scalar(bundles, copy, tmp_path):
    rewrite(bundles, copy, lambda graph: graph.output[0].type.tensor_type.shape.ClearField("dim"))
    with pytest.raises(ExportError, match="at least one axis"):
        write_layout(copy, tmp_path / "models", "triton")


@pytest.mark.parametrize("where", ["initializer", "attribute", "subgraph"])
def test_tables_outside_the_bundle(bundles, copy, tmp_path, where):
    tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")

    def change(graph):
        if where == "initializer":
            graph.initializer.append(tensor)
            return
        node = helper.make_node("Constant", [], ["c"], value=tensor)
        if where == "subgraph":
            inner = helper.make_graph([node], "inner", [], [])
            node = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
        graph.node.append(node)

    rewrite(bundles, copy, change)
    with pytest.raises(ExportError, match=r"'\.\./secret'"):
        write_layout(copy, tmp_path / "models", "triton")


@pytest.mark.parametrize(("kind", "user"), [("int64", 42), ("string", 'it\'s "zoë"')])
def test_the_request_that_is_shown(tmp_path, kind, user):
    _, line = triton.next_steps(tmp_path, {"ids": {"user": kind, "item": kind}}, user)
    curl, address, flag, body = shlex.split(line)
    assert (curl, address, flag) == ("curl", "localhost:8000/v2/models/cflightning_recommend/infer", "-d")
    inputs = {tensor["name"]: tensor for tensor in json.loads(body)["inputs"]}
    assert inputs["user"] == {
        "name": "user", "shape": [1], "datatype": "INT64" if kind == "int64" else "BYTES", "data": [user],
    }  # fmt: skip
    assert inputs.keys() == {"user", "k", "exclude_user", "exclude_item"}
