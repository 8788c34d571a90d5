"""A bundle computes what the network does, and is complete or not there."""

import json
import shutil

import numpy as np
import onnx
import onnxruntime as ort
import pandas as pd
import pytest
import torch
from lightning.pytorch import Trainer

from cflightning import EmbeddingDotTask, EmbeddingMLPTask, RatingsDataModule
from cflightning.__main__ import main as front_door
from cflightning.data.ids import Ids
from cflightning.data.splits.options import SplitOptions
from cflightning.data.vocabulary import Vocabulary
from cflightning.errors import CheckpointError, ExportError
from cflightning.evaluation.run_metrics import group_metrics, read_metrics
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.tasks.loading import load_task
from cflightning_export import export_bundle
from cflightning_export.contents.networks import bundle_networks
from cflightning_export.graphs import catalogue, registry, score, similar
from cflightning_export.graphs.base import BundleSource, GraphFamily
from cflightning_export.graphs.registry import verify_graphs
from cflightning_export.graphs.similar import similar_graph
from cflightning_serve import Scorer, UnsupportedError


def checkpoint(folder, task, strings=False, users=300, items=120):
    data = RatingsDataModule(
        source="synthetic", synthetic={"num_users": users, "num_items": items, "num_ratings": users * 20}
    )
    frame = data.table.frame
    if strings:
        frame = frame.assign(user="u" + frame["user"].astype(str), item=frame["item"].astype(str).str.zfill(4) + "é")
    fit = Trainer(max_epochs=3, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                  enable_model_summary=False, accelerator="cpu")  # fmt: skip
    fit.fit(task, RatingsDataModule.from_frame(frame, split=SplitOptions(val_fraction=0.05)))
    fit.save_checkpoint(folder / "task.ckpt")
    return folder / "task.ckpt"


TASKS = {
    "dot": (lambda: EmbeddingDotTask(dim=16, objective="mse", std=0.3), False),
    "dot, strings": (lambda: EmbeddingDotTask(dim=16, std=0.3), True),
    "dot, no sigmoid": (lambda: EmbeddingDotTask(dim=16, objective="mse", sigmoid=False), False),
    "mlp, strings": (lambda: EmbeddingMLPTask(dim=8, hidden=(12, 6), std=0.3), True),
    "multitask, strings": (lambda: EmbeddingDotTask(dim=8, objective="multitask", members=2, compress=6,
                                               ranking={"objective": "svd", "dim": 12}), True),
    "ials": (lambda: EmbeddingDotTask(dim=16, objective="ials"), False),
    "bce": (lambda: EmbeddingDotTask(dim=8, objective="bce", members=2), False),
}  # fmt: skip


SLOW = {"dot, strings", "bce"}
"""Tasks that other ones resemble in their graphs."""


@pytest.fixture(scope="module", params=[
    pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in TASKS
])  # fmt: skip
def exported(request, tmp_path_factory):
    make, strings = TASKS[request.param]
    folder = tmp_path_factory.mktemp("export")
    path = checkpoint(folder, make(), strings)
    return load_task(path), Scorer.load(export_bundle(path, folder / "bundle"))


def recommender(task):
    return getattr(task, "recommender", task.network)


@pytest.mark.slow
def test_the_manifest_names_format_and_units(exported):
    task, scorer = exported
    objective = getattr(task, "objective", "mse") or "multitask"
    manifest = json.loads((scorer.manifest.folder / "manifest.json").read_text())
    if objective == "mse":
        assert manifest["format_version"] == 1
        assert "units" not in manifest
    else:
        assert manifest["format_version"] == 2
        assert manifest["units"] == {"score": "rating" if objective == "multitask" else "choice", "recommend": "choice"}
    assert (manifest["rating_range"] is None) == (objective in ("ials", "svd", "bce"))
    assert manifest["dim"] == task.network.dim


def test_scores_are_those_of_torch_for_every_pair(exported):
    task, scorer = exported
    users, items = task.vocabulary.users.values, task.vocabulary.items.values
    row = torch.cartesian_prod(torch.arange(1, len(users) + 1), torch.arange(1, len(items) + 1))
    with torch.no_grad():
        expected = task(row[:, 0], row[:, 1]).numpy()
    scores = scorer.score(np.repeat(users, len(items)), np.tile(items, len(users)))
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    low, high = task.network.rating_range or (-np.inf, np.inf)
    assert scores.min() >= low
    assert scores.max() <= high


def test_recommendations_are_those_of_sorting_all_scores(exported):
    task, scorer = exported
    items = task.vocabulary.items.values
    network, units = recommender(task), scorer.manifest.units
    for row in (1, 8, len(task.vocabulary.users.values)):
        user = task.vocabulary.users.values[row - 1]
        seen = items[[3, 4, 50]].tolist()
        with torch.no_grad():
            scores = network(torch.tensor([row]).expand(len(items)), torch.arange(1, len(items) + 1)).numpy()
        scores[[3, 4, 50]] = -np.inf
        top = scorer.recommend(user, k=10, exclude=seen)
        np.testing.assert_allclose(top.scores, np.sort(scores)[::-1][:10], atol=1e-5)
        assert not set(seen) & set(top.items.tolist())
        if units["score"] == units["recommend"]:
            np.testing.assert_allclose(scorer.score(user, top.items), top.scores, atol=1e-5)
    assert len(scorer.recommend(user, k=1000).items) == len(items)


def test_unknown_ids_have_the_scores_of_index_0(exported):
    task, scorer = exported
    strings = task.vocabulary.users.kind == "string"
    unknown, first = ("nobody" if strings else -5), task.vocabulary.items.values[0]
    if scorer.manifest.units["score"] == "rating":
        with torch.no_grad():
            expected = task(torch.tensor([0]), torch.tensor([1])).item()
        assert scorer.score(unknown, first) == pytest.approx(expected, abs=1e-5)
    assert not scorer.knows_user(unknown)
    assert scorer.knows_item(first)
    assert len(scorer.recommend(unknown, k=3).items) == 3


@pytest.mark.parametrize(
    "exported", ["multitask, strings", "ials", pytest.param("bce", marks=pytest.mark.slow)], indirect=True
)
def test_an_unknown_user_is_the_mean_user_for_implicit_feedback(exported):
    task, scorer = exported
    network, users = recommender(task), task.vocabulary.users.num_embeddings
    with torch.no_grad():
        mean = network.catalogue(torch.arange(1, users)).double().mean(0)[1:].numpy()
    top = scorer.recommend("nobody" if task.vocabulary.users.kind == "string" else -5, k=1000)
    rows = task.vocabulary.items.indices(top.items) - 1
    np.testing.assert_allclose(top.scores, mean[rows], atol=1e-5)
    np.testing.assert_allclose(top.scores, np.sort(mean)[::-1], atol=1e-5)
    assert len(np.unique(top.scores)) > 100  # not the order of the catalogue
    assert not network.user_factors.weight[0].any()  # the unknown user's vector in the task is still zero


def test_similar_items_are_sorted_by_cosine(exported):
    task, scorer = exported
    vectors = recommender(task).item_vectors().detach().numpy()[1:]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = unit @ unit[5]
    cosine[5] = -np.inf
    items = task.vocabulary.items.values
    near = scorer.similar_items(items[5], k=4)
    assert near.items.tolist() == items[np.argsort(-cosine)[:4]].tolist()
    np.testing.assert_allclose(near.scores, np.sort(cosine)[::-1][:4], atol=1e-5)


def test_similar_users_are_sorted_by_cosine(exported):
    task, scorer = exported
    users, tables = task.vocabulary.users.values, recommender(task).tables()
    if tables is None:
        with pytest.raises(UnsupportedError, match="has no graph 'similar_users'"):
            scorer.similar_users(users[0])
        return
    vectors = tables.user_vectors.detach()[1:]
    cosine = torch.cosine_similarity(vectors, vectors[5]).numpy()
    cosine[5] = -np.inf
    near = scorer.similar_users(users[5], k=4)
    np.testing.assert_allclose(near.scores, np.sort(cosine)[::-1][:4], atol=1e-5)
    np.testing.assert_allclose(cosine[task.vocabulary.users.indices(near.users) - 1], near.scores, atol=1e-5)
    assert len(scorer.similar_users(users[5], k=1000).users) == len(users) - 1


def test_the_audience_is_sorted_by_the_score_of_recommendations(exported):
    task, scorer = exported
    users, items, network = task.vocabulary.users.values, task.vocabulary.items.values, recommender(task)
    for item in (1, len(items)):
        with torch.no_grad():
            scores = network(torch.arange(1, len(users) + 1), torch.full((len(users),), item)).numpy()
        top = scorer.audience(items[item - 1], k=10)
        np.testing.assert_allclose(top.scores, np.sort(scores)[::-1][:10], atol=1e-5)
        np.testing.assert_allclose(scores[task.vocabulary.users.indices(top.users) - 1], top.scores, atol=1e-5)


@pytest.mark.slow
def test_stored_norms_give_the_same_similar_items():
    network = EmbeddingDot(5, 3000, 8, std=0.5).eval()
    with torch.no_grad():
        network.item_factors.weight[7] = 0  # no direction
    words, found = Vocabulary(Ids(np.arange(4)), Ids(np.arange(2999))), []
    for bound in (3000, 2999):
        model = similar_graph(network, words, max_computed_norms=bound)
        stored = [tensor.name for tensor in model.graph.initializer]
        assert ("inverse_norm" in stored) == (bound < 3000)
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        found.append(session.run(["similar", "similarity"], {"item": np.array([6, 0, 2998]), "k": np.array([5])}))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_allclose(found[0][1], found[1][1], atol=1e-6)
    assert not found[0][1][0].any()
    vectors = network.item_vectors().detach()[1:]
    expected = torch.cosine_similarity(vectors, vectors[2998]).numpy()
    np.testing.assert_allclose(found[0][1][2], np.sort(expected)[::-1][1:6], atol=1e-5)


def test_manifest_and_shared_weights(bundle, run):
    manifest = json.loads((bundle / "manifest.json").read_text())
    metrics = read_metrics(run / "metrics.json")
    assert manifest["metrics"]["test/rmse"] == metrics["test/rmse"]
    assert {"test/rmse", "test/mae", "val/rmse", "val/mae", "test/baseline_rmse"} <= set(manifest["metrics"])
    assert {name.split("/")[0] for name in manifest["metrics"]} == {"test", "val"}
    assert manifest["num_users"] == 61
    assert manifest["num_items"] == 41
    # Each table lies in the file once, and every graph points at it.
    places = {}
    for name in ("score", "recommend", "similar"):
        model = onnx.load(bundle / f"{name}.onnx", load_external_data=False)
        onnx.checker.check_model(str(bundle / f"{name}.onnx"))
        assert [o.version for o in model.opset_import] == [18, 4]
        assert model.ir_version <= 10
        for tensor in model.graph.initializer:
            if tensor.external_data:
                entry = {e.key: e.value for e in tensor.external_data}
                assert entry["location"] == "weights.bin"
                places.setdefault(tensor.name, set()).add(entry["offset"])
    assert {"network.user_factors.weight", "network.item_factors.weight"} <= set(places)
    assert all(len(offsets) == 1 for offsets in places.values())


@pytest.mark.parametrize("objective", ["mse", None])
def test_the_comparison_with_other_models_is_kept(tmp_path, objective):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    path = checkpoint(folder, EmbeddingDotTask(dim=2, objective=objective), False).rename(folder / "best.ckpt")
    figures = {"test/rmse": 0.9, "test/ndcg@10": 0.4, "test/ease/ndcg@10": 0.5, "seconds/train": 1.0, "epochs": 3}
    figures = {name: value for name, value in figures.items() if objective is None or "ndcg" not in name}
    (tmp_path / "metrics.json").write_text(json.dumps(group_metrics(figures, {})))
    bundle = export_bundle(path, tmp_path / "bundle", with_history=False)
    written, read = json.loads((bundle / "manifest.json").read_text()), Scorer.load(bundle).manifest
    assert ("comparison" in written) == (objective is None)
    if objective is None:
        assert read.metrics == {"test/rmse": 0.9, "test/ndcg@10": 0.4}
        assert read.comparison.test == {"ease": {"ndcg@10": 0.5}}
        assert read.comparison.validation == load_task(path).metadata.ranking_trials
        assert read.comparison.chosen == "ease (dim 256)"
        assert [name.partition(" ")[0] for name in read.comparison.validation] == ["ease", "ials"]


def test_titles_travel(bundle):
    scorer = Scorer.load(bundle)
    assert scorer.title(2) == "Café Müller (2001)"
    assert (scorer.manifest.titles, scorer.manifest.catalogue) == ("titles.json.gz", "catalogue.json.gz")


def test_graphs_hold_no_metadata_of_the_exporter(bundle):
    for path in bundle.glob("*.onnx"):
        model = onnx.load(path, load_external_data=False)
        for part in (model, model.graph, *model.graph.node, *model.graph.initializer):
            assert not part.metadata_props, path.name
            assert not part.doc_string, path.name
        assert b"/site-packages/" not in path.read_bytes()


def test_a_catalogue_of_one_item(tmp_path):
    frame = pd.DataFrame({"user": [1, 2, 3], "item": [9, 9, 9], "rating": [1.0, 2.0, 5.0]})
    fit = Trainer(max_epochs=1, limit_val_batches=0, logger=False, enable_checkpointing=False,
                  enable_progress_bar=False, enable_model_summary=False, accelerator="cpu")  # fmt: skip
    fit.fit(
        EmbeddingDotTask(dim=2, learning_rate=0.0),
        RatingsDataModule.from_frame(frame, split=SplitOptions(test_fraction=0, val_fraction=0)),
    )
    fit.save_checkpoint(tmp_path / "one.ckpt")
    scorer = Scorer.load(export_bundle(tmp_path / "one.ckpt", tmp_path / "bundle"))
    assert scorer.recommend(1, k=5).items.tolist() == [9]
    assert scorer.recommend(1, k=5, exclude=[9]).items.tolist() == []
    assert scorer.similar_items(9, k=5).items.tolist() == []


# Complete or not there -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_wrong_graph_fails_the_export_and_leaves_nothing(run, tmp_path):
    def wired_wrong(source):
        for name, model in score.build(source):
            for node in model.graph.node:  # as the exporter wires one tensor that is given twice
                if node.op_type == "Gather" and node.input[1] == "item_index":
                    node.input[1] = "user_index"
            yield name, model

    wrong = GraphFamily(wired_wrong, lambda folder, source: None)  # replaces the graph of the same name
    registry.register(wrong)
    try:
        with pytest.raises(ExportError, match="must agree with torch|onnxruntime cannot answer"):
            export_bundle(run, tmp_path / "bundle")
    finally:
        registry.unregister(wrong)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("graph", ["recommend", "similar"])
def test_other_weights_fail_the_verification(run, bundle, tmp_path, graph):
    task = load_task(run / "checkpoints" / "best.ckpt")
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    source = BundleSource(bundle_networks(task), task.vocabulary)
    verify_graphs(copy, source)
    model = onnx.load(copy / f"{graph}.onnx")
    for tensor in model.graph.initializer:
        if tensor.name == "network.item_factors.weight":
            values = onnx.numpy_helper.to_array(tensor)[::-1].copy()
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(model, copy / f"{graph}.onnx")
    with pytest.raises(ExportError, match=rf"{graph}.onnx"):
        verify_graphs(copy, source)


@pytest.mark.parametrize("exported", ["multitask, strings"], indirect=True)
def test_graphs_of_the_other_network_fail_the_verification(exported):
    folder, task = exported[1].manifest.folder, load_task(exported[1].manifest.folder.parent / "task.ckpt")
    networks = bundle_networks(task)
    verify_graphs(folder, BundleSource(networks, task.vocabulary))
    swapped = {"score": networks.recommend, "recommend": networks.score}
    for name, other in swapped.items():
        source = BundleSource(networks._replace(**{name: other}), task.vocabulary)
        for family, graph in ((score, "score"), (catalogue, "recommend"), (similar, "similar")):
            if (graph == "score") == (name == "score"):
                with pytest.raises(ExportError, match=rf"{graph}.onnx"):
                    family.verify(folder, source)


@pytest.mark.slow
def test_scores_of_implicit_feedback_are_verified_relative_to_their_size(tmp_path):
    path = checkpoint(tmp_path, EmbeddingDotTask(dim=8, objective="svd"))
    content = torch.load(path)
    content["state_dict"]["network.user_factors.weight"] *= 1e-6
    torch.save(content, path)
    folder, task = export_bundle(path, tmp_path / "bundle"), load_task(path)
    networks = bundle_networks(task)
    with torch.no_grad():
        networks.score.user_factors.weight[1:] *= 1.001
    with pytest.raises(ExportError, match=r"score.onnx"):
        score.verify(folder, BundleSource(networks, task.vocabulary))


@pytest.mark.slow
def test_only_bundles_are_replaced_and_only_with_overwrite(run, bundle, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(ExportError, match="exists and is not a bundle"):
            export_bundle(run, tmp_path / "mine", overwrite=overwrite)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    shutil.copytree(bundle, tmp_path / "old")
    with pytest.raises(ExportError, match="--overwrite"):
        export_bundle(run, tmp_path / "old")
    (tmp_path / "empty").mkdir()
    export_bundle(run, tmp_path / "empty")
    Scorer.load(export_bundle(run, tmp_path / "old", overwrite=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "mine", "old"]


def test_a_missing_source_is_an_error(tmp_path, capsys):
    with pytest.raises(CheckpointError, match="does not exist"):
        export_bundle(tmp_path / "no", tmp_path / "bundle")
    assert front_door(["export", str(tmp_path / "no"), str(tmp_path / "bundle")]) == 2
    assert capsys.readouterr().err.startswith("cflightning: ")
    with pytest.raises(SystemExit) as done:
        front_door(["export", "--help"])
    assert done.value.code == 0
    assert list(tmp_path.iterdir()) == []


def test_a_link_or_the_current_folder_is_no_target(run, bundle, tmp_path, monkeypatch):
    shutil.copytree(bundle, tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(ExportError, match="is a link"):
        export_bundle(run, tmp_path / "link", overwrite=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ExportError, match="is the current folder"):
        export_bundle(run, ".")
