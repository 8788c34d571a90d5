"""Recommendations, catalogue and history of a bundle, compared with the run."""

import shutil

import numpy as np
import onnx
import pytest
import torch

from cflightning import EmbeddingDotTask
from cflightning.__main__ import main as front_door
from cflightning.data.splits.split import TRAIN
from cflightning.errors import ExportError
from cflightning.tasks.loading import load_task
from cflightning_export.contents.networks import bundle_networks
from cflightning_export.contents.seen_items import seen_rows
from cflightning_export.contents.training_data import training_rows
from cflightning_export.graphs.base import BundleSource
from cflightning_export.graphs.registry import verify_graphs
from cflightning_serve import Scorer

from ..frames import make_frame

CASES = {
    "ratings, strings": (lambda: EmbeddingDotTask(dim=4, std=0.3), True, {}),
    "multitask": (
        lambda: EmbeddingDotTask(dim=4, objective="multitask", ranking={"objective": "svd", "dim": 6}),
        False,
        {},
    ),
}  # few: every case is an export


@pytest.fixture(scope="module", params=list(CASES))
def exported(request, tmp_path_factory, make_run):
    make, strings, options = CASES[request.param]
    folder = tmp_path_factory.mktemp("lists") / "run"
    data = make_run(folder, make_frame(strings), make(), table={"categories": "kind"}, **options)
    bundle = folder.parent / "bundle"
    assert front_door(["export", str(folder), str(bundle), "--with-history"]) == 0
    return data, load_task(folder / "checkpoints" / "best.ckpt"), Scorer.load(bundle)


@pytest.mark.slow
def test_history_is_the_training_part(exported):
    data, _, scorer = exported
    train = data.table.frame[data.split.parts == TRAIN]
    value = next((name for name in ("rating", "weight") if name in train), None)
    for user in scorer.users():
        mine = train[train["user"] == user].sort_values("item")
        items, ratings = scorer.history(user)
        assert items.tolist() == mine["item"].tolist()
        assert ratings.tolist() == ([1.0] * len(mine) if value is None else mine[value].tolist())
    assert len(scorer.history("nobody" if scorer.manifest.user_ids == "string" else -7)[0]) == 0


def test_recommendations_exclude_seen_items(exported):
    data, task, scorer = exported
    network = getattr(task, "recommender", task.network)
    table = data.table.frame
    for row, user in enumerate(scorer.users(), 1):
        seen = set(table["item"][table["user"] == user])
        with torch.no_grad():
            logits = network.catalogue(torch.tensor([row]))[0, 1:].numpy()
        ids = scorer.catalogue.ids
        expected = [item for item in ids[np.argsort(-logits, kind="stable")].tolist() if item not in seen][:5]
        assert scorer.recommend(user, 5).items.tolist() == expected
        odd = [item for place, item in enumerate(ids.tolist()) if place in scorer.catalogue.categories["odd"]]
        top = scorer.recommend(user, 5, exclude_seen=False, categories="odd").items.tolist()
        assert top == [item for item in ids[np.argsort(-logits, kind="stable")].tolist() if item in odd][:5]
    lists = scorer.recommend_many(scorer.users(), 5)
    assert lists.items.tolist() == [i for top in scorer.recommend(scorer.users(), 5) for i in top.items.tolist()]


def test_the_catalogue_holds_the_items_of_the_training_part(exported):
    data, task, scorer = exported
    train = data.table.frame[data.split.parts == TRAIN]
    counts = train["item"].value_counts().sort_index()
    assert scorer.catalogue.ids.tolist() == counts.index.tolist()
    assert scorer.catalogue.counts.tolist() == counts.tolist()
    assert {name: len(places) for name, places in scorer.catalogue.categories.items()} == {
        "all": len(counts),
        "odd": sum(int("".join(c for c in str(item) if c.isdigit())) % 2 for item in counts.index),
    }
    assert scorer.users().tolist() == task.vocabulary.users.values.tolist()
    vectors = getattr(task, "recommender", task.network).item_vectors().detach().numpy()
    np.testing.assert_array_equal(scorer.factors(scorer.catalogue.ids), vectors[1:])


def test_items_of_rows_are_stored_once(exported):
    _, _, scorer = exported
    entries = []
    for question in ("seen", "history"):
        graph = onnx.load(scorer.manifest.path(question), load_external_data=False).graph
        [items] = [tensor for tensor in graph.initializer if tensor.name == "items"]
        entries.append((items.data_type, items.raw_data, [(entry.key, entry.value) for entry in items.external_data]))
    assert entries[0] == entries[1]
    assert entries[0][0] == onnx.TensorProto.UINT16


def test_tables_of_lists_are_shared_with_the_other_graphs(bundle):
    places = {}
    for path in bundle.glob("*.onnx"):
        onnx.checker.check_model(str(path))
        for tensor in onnx.load(path, load_external_data=False).graph.initializer:
            entry = {e.key: e.value for e in tensor.external_data}
            if entry and int(entry["length"]) == 41 * 8 * 4:
                places.setdefault(path.stem, set()).add(entry["offset"])
    assert (
        len({frozenset(places[name]) for name in ("recommend", "filtered", "scores", "factors", "similar", "audience")})
        == 1
    )


@pytest.mark.parametrize("exported", ["multitask"], indirect=True)
@pytest.mark.parametrize(
    "graph", ["filtered", "scores", "factors", "users", "similar_users", "audience", "seen", "history"]
)
def test_a_graph_of_other_tables_fails_the_verification(exported, tmp_path, graph):
    data, task, scorer = exported
    folder = shutil.copytree(scorer.manifest.folder, tmp_path / "copy")
    rows = seen_rows(data, task.vocabulary, training_rows(data, task.vocabulary, rates=task.predicts_ratings))

    source = BundleSource(bundle_networks(task), task.vocabulary, rows, with_ratings=True)
    verify_graphs(folder, source)
    model = onnx.load(folder / f"{graph}.onnx")
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.ndim and len(values) > 20:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.roll(values, 1, axis=0), tensor.name))
    onnx.save(model, folder / f"{graph}.onnx")
    with pytest.raises(ExportError, match=rf"{graph}\.onnx"):
        verify_graphs(folder, source)
