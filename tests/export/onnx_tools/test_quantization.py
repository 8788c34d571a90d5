"""Tables in fp16 and int8: what is stored, what it changes, and the limits that fail an export."""

import json

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from cflightning.__main__ import main as front_door
from cflightning.data.ids import Ids
from cflightning.data.vocabulary import Vocabulary
from cflightning.errors import ExportError
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.tasks.loading import load_task
from cflightning_export import export_bundle
from cflightning_export.contents.networks import bundle_networks
from cflightning_export.graphs.two_pass import find_search, two_pass_graph
from cflightning_export.onnx_tools.quantization import (
    MIN_INT8_COLUMNS,
    Change,
    Rounding,
    measure_change,
    round_table,
    round_tables,
    round_within,
    store_rounded,
)
from cflightning_serve import Scorer

from ..test_bundle import TASKS, checkpoint

LOOSE = {"max_rmse_change": 10.0, "min_overlap": 0.0}
KINDS = {"fp16": np.float16, "int8": np.int8}


def by_rows(values, precision):
    """Rounded in float64, one row after the other."""
    if precision == "fp16":
        return values.astype(np.float16).astype(float)
    if values.shape[1] < MIN_INT8_COLUMNS:
        return values.astype(np.float16).astype(float)
    rows = []
    for row in values.astype(float):
        scale = np.abs(row).max() / 127
        half = np.float16(scale)
        scale = float(half if half <= scale else np.nextafter(half, np.float16(0)))  # never above, or 127 would be 126
        rows.append(np.clip(np.round(row / scale), -127, 127) * scale if scale else 0 * row)
    return np.array(rows)


SLOW = pytest.param(("mlp, strings", "fp16"), marks=pytest.mark.slow, id="mlp, strings, fp16")


@pytest.fixture(scope="module", params=[("multitask, strings", "int8"), SLOW], ids=str)
def exported(request, tmp_path_factory):
    """The task as trained, the scorer of its bundle and the precision."""
    name, precision = request.param
    folder = tmp_path_factory.mktemp("precision")
    path = checkpoint(folder, TASKS[name][0](), TASKS[name][1])
    return load_task(path), Scorer.load(export_bundle(path, folder / "b", precision=precision, **LOOSE)), precision


@pytest.mark.slow
def test_a_bundle_answers_by_the_rounded_tables(exported):
    task, scorer, precision = exported
    networks = bundle_networks(task)
    users, items = task.vocabulary.users.values, task.vocabulary.items.values
    kept = {name: value.clone() for name, value in task.state_dict().items()}
    for network in {networks.score, networks.recommend}:
        for module in network.modules():
            if isinstance(module, torch.nn.Embedding):
                with torch.no_grad():
                    module.weight.copy_(torch.from_numpy(by_rows(module.weight.numpy(), precision)))
    rows = torch.arange(1, len(items) + 1)
    with torch.no_grad():
        scores = networks.score(torch.full_like(rows, 3), rows).numpy()
        logits = networks.recommend.catalogue(torch.tensor([3]))[0, 1:].numpy()
        vectors = networks.recommend.item_vectors()[1:]
        cosines = torch.cosine_similarity(vectors, vectors[4]).numpy()
        every_user = torch.arange(1, len(users) + 1)
        audience = networks.recommend(every_user, torch.full_like(every_user, 7)).numpy()
        tables = networks.recommend.tables()
        user_vectors = None if tables is None else tables.user_vectors[1:].clone()
    task.load_state_dict(kept)
    np.testing.assert_allclose(scorer.score(users[2], items), scores, atol=2e-5)
    top = task.vocabulary.items.indices(scorer.recommend(users[2], 10).items) - 1
    np.testing.assert_allclose(logits[top], np.sort(logits)[::-1][:10], atol=2e-5 * max(1, np.abs(logits).max()))
    np.testing.assert_allclose(scorer.similar_items(items[4], 3).scores, np.sort(cosines)[::-1][1:4], atol=2e-5)
    np.testing.assert_allclose(scorer.audience(items[6], 9).scores, np.sort(audience)[::-1][:9], rtol=1e-5, atol=2e-5)
    if user_vectors is not None:
        cosines = torch.cosine_similarity(user_vectors, user_vectors[4]).numpy()
        np.testing.assert_allclose(scorer.similar_users(users[4], 3).scores, np.sort(cosines)[::-1][1:4], atol=2e-5)


def test_tables_are_stored_once_and_in_few_bytes(exported):
    task, scorer, precision = exported
    wide = {
        tuple(value.shape)
        for network in bundle_networks(task)[:2]
        for name, value in network.state_dict().items()
        if "factors" in name and value.shape[1] >= MIN_INT8_COLUMNS
    }
    places = {}
    for name in ("score", "recommend", "similar", "similar_users", "audience"):
        if name not in scorer.manifest.graphs:
            continue
        model = onnx.load(scorer.manifest.folder / f"{name}.onnx", load_external_data=False)
        onnx.checker.check_model(str(scorer.manifest.folder / f"{name}.onnx"))
        for tensor in model.graph.initializer:
            if tuple(tensor.dims) in wide:
                assert onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type) == KINDS[precision]
                entry = {one.key: one.value for one in tensor.external_data}
                places.setdefault(tensor.name, set()).add(entry["offset"])
        looked_up = {node.input[0] for node in model.graph.node if node.op_type == "Gather"}
        # Rows are looked up before they are scaled, never the other way round; only columns are floats before.
        floats = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type in ("Cast", "Mul")}
        shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
        assert all(shapes[floats[name]][1:] in ([], [1]) for name in looked_up & set(floats))
    assert wide
    assert places
    assert all(len(offsets) == 1 for offsets in places.values())


def test_the_manifest_has_the_change(exported):
    task, scorer, kind = exported
    precision = json.loads((scorer.manifest.folder / "manifest.json").read_text())["precision"]
    assert list(precision) == ["tables", "rmse_change", "overlap@10"]
    assert precision["tables"] == kind
    users, items = task.vocabulary.users.values, task.vocabulary.items.values
    networks = bundle_networks(task)
    pairs = torch.cartesian_prod(torch.arange(1, len(users) + 1), torch.arange(1, len(items) + 1))
    with torch.no_grad():
        exact = task(pairs[:, 0], pairs[:, 1]).double().numpy()
        logits = networks.recommend.catalogue(torch.arange(1, len(users) + 1))[:, 1:]
    off = scorer.score(np.repeat(users, len(items)), np.tile(items, len(users))) - exact
    assert precision["rmse_change"] == pytest.approx(np.sqrt((off**2).mean()), rel=0.1, abs=1e-6)  # a sample of these
    kept = [
        len(set(top.items.tolist()) & set(items[best].tolist())) / 10
        for top, best in zip(scorer.recommend(users, 10), logits.topk(10).indices.numpy(), strict=True)
    ]
    assert precision["overlap@10"] == pytest.approx(np.mean(kept), abs=2e-3)


def test_an_exceeded_limit_fails_the_export_and_leaves_nothing(run, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    target = tmp_path / "out" / "bundle"
    with pytest.raises(ExportError, match="must be fp32, fp16 or int8, got 'int4'"):
        export_bundle(run, target, precision="int4")
    with pytest.raises(ExportError, match=r"must keep 110.0% of their items.*--min-overlap"):
        export_bundle(run, target, precision="int8", max_rmse_change=10.0, min_overlap=1.1)
    for limit in ("-1", "nan"):
        assert front_door(["export", str(run), str(target), "--precision", "int8", "--max-rmse-change", limit]) == 2
        error = capsys.readouterr().err
        assert f"cflightning: --precision int8: scores must change by at most {limit}" in error
        assert "--max-rmse-change" in error
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("limits", [(1.0, 5.0), None])
def test_the_default_limits(limits):
    """One large column spoils int8, which exceeds .001 of the range, or .02 standard deviations."""
    network = EmbeddingDot(50, 200, 16, limits, std=0.5).eval()
    assert round_within({"score": network, "recommend": network}, "fp32", None, 0.97) is None
    rounding = round_within({"score": network, "recommend": network}, "fp16", None, 0.97)
    assert rounding.summary()["tables"] == "fp16"
    with torch.no_grad():
        network.user_factors.weight[1:, 0] = 0.0
        network.item_factors.weight[1:, 0] = 300.0  # the rest of each row rounds to nothing
    with pytest.raises(ExportError, match="scores must change by at most 0.0[02]"):
        round_within({"score": network, "recommend": network}, "int8", None, 0.97)


def test_values_that_fp16_cannot_represent():
    network = EmbeddingDot(4, 5, 8)
    with torch.no_grad():
        network.item_factors.weight[2, 3] = 1e5
    with pytest.raises(ExportError, match="values of item_factors must not exceed 65504"):
        round_tables({"score": network}, "fp16")
    round_tables({"score": network}, "int8")
    assert network.item_factors.weight[2, 3].item() == pytest.approx(1e5, rel=1e-3)
    assert not network.item_factors.weight[0].any()


def test_equal_tables_do_not_change():
    networks = dict.fromkeys(("score", "recommend"), EmbeddingDot(4, 5, 8, (1.0, 5.0), std=0.1).eval())
    assert measure_change(networks, networks) == (0.0, 1.0)  # also if the catalogue is shorter than the lists


@pytest.mark.parametrize("precision", KINDS)
def test_two_passes_over_rounded_tables(precision):
    """The branch that scores all items reads the stored tables as well."""
    network = EmbeddingDot(30, 901, 16, std=0.5).eval()
    with torch.no_grad():
        network.item_bias.weight[1:] = 0.2 * torch.randn(900, 1, generator=torch.Generator().manual_seed(0))
    tables = round_tables({"recommend": network}, precision)
    words = Vocabulary(Ids(np.arange(1, 30)), Ids(np.arange(1, 901)))
    model = two_pass_graph("recommend", find_search(network.tables()), network.scale, words)
    size = len(model.SerializeToString())
    store_rounded(model, Rounding(precision, tables, Change(0.0, 1.0)))
    assert len(model.SerializeToString()) < size - 900 * 16
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    none = np.empty(0, np.int64)
    with torch.no_grad():
        logits = network.catalogue(torch.arange(30)).numpy()[:, 1:]
    for user in (0, 3):
        for k in (10, 900):
            feeds = {"user": np.array([user]), "k": np.array([k]), "exclude_user": none, "exclude_item": none}
            item, score, _ = session.run(None, feeds)
            np.testing.assert_allclose(score[0], np.sort(logits[user])[::-1][:k], atol=1e-5)
            np.testing.assert_allclose(logits[user][item[0] - 1], score[0], atol=1e-5)


@pytest.mark.parametrize("size", [1e-12, 1e-4, 1.0, 1e3, 1e8])
def test_rounded_tables_are_stored_exactly(size):
    """Codes and scales give the rounded values; scales are fp16 where that suffices."""
    rng = np.random.default_rng(0)
    table = (rng.standard_normal((50, 16)) * size * rng.lognormal(0, 1, (50, 1))).astype(np.float32)
    table[0] = 0
    table[1] *= np.float32(1e-9)
    rounded = round_table("table", table, "int8")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["table"], ["out"])],
        "g",
        [],
        [onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, [50, 16])],
        [onnx.numpy_helper.from_array(rounded, "table")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    store_rounded(model, Rounding("int8", [rounded], Change(0.0, 1.0)))
    code, scale = (onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer)
    assert (code.dtype, scale.dtype) == (np.int8, np.float16 if 1e-4 < size < 1e8 else np.float32)
    np.testing.assert_allclose(code * scale.astype(np.float32), rounded, rtol=1e-6)
    np.testing.assert_allclose(rounded, by_rows(table, "int8") if scale.dtype == np.float16 else rounded, rtol=1e-6)
    step = np.abs(table).max(1, keepdims=True) / 127
    assert (
        np.abs(rounded - table) <= 0.51 * step + 127 * 2.0**-24 * (scale.dtype == np.float16) + 1e-3 * 127 * step
    ).all()


@pytest.mark.slow
def test_svdpp_terms_are_rounded_as_well(run, tmp_path):
    bundle = export_bundle(run, tmp_path / "bundle", precision="int8", **LOOSE)
    for name in ("fold_in", "explain"):
        tensors = onnx.load(bundle / f"{name}.onnx", load_external_data=False).graph.initializer
        kinds = {tensor.name: onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type) for tensor in tensors}
        assert kinds["prior_weights.code"] in (np.int8, np.float16)
        assert kinds["vectors.code"] == np.int8
        assert kinds["bias.code"] == np.float16
        assert not {"prior_weights", "vectors", "bias"} & set(kinds)
    scorer = Scorer.load(bundle)
    items = scorer.catalogue.ids[:5].tolist()
    plain = Scorer.load(export_bundle(run, tmp_path / "plain"))
    scores = [one.fold_in(items, [5, 4, 1, 2, 3], score=items).requested_scores for one in (scorer, plain)]
    np.testing.assert_allclose(*scores, atol=0.05)
    assert not np.array_equal(*scores)
