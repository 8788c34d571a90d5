"""Catalogue, history, factors and filtered recommendations of an exported bundle, compared with the run."""

import gzip
import json
import shutil
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pandas as pd
import pytest
import torch

from cflightning import EmbeddingDotTask
from cflightning.__main__ import main as front_door
from cflightning.data.splits.split import TRAIN
from cflightning.data.table import RatingTable
from cflightning.data.vocabulary import Vocabulary
from cflightning.errors import ExportError
from cflightning.tasks.loading import load_task
from cflightning_export import export_bundle
from cflightning_export.contents.item_metadata import write_catalogue
from cflightning_export.contents.networks import bundle_networks
from cflightning_export.contents.seen_items import SeenRows, seen_rows
from cflightning_export.contents.training_data import training_data, training_rows
from cflightning_export.graphs.base import BundleSource
from cflightning_export.graphs.history import history_graph
from cflightning_export.graphs.registry import verify_graphs
from cflightning_serve import Scorer, UnsupportedError


def make_frame(strings=False, users=40, items=25, seed=0):
    rng = np.random.default_rng(seed)
    pairs = rng.permutation(users * items)[: users * items // 3]
    frame = pd.DataFrame({"user": pairs // items, "item": pairs % items, "rating": rng.integers(1, 6, len(pairs))})
    frame["kind"] = np.where(frame["item"] % 2, "odd|all", "all")
    if strings:
        frame = frame.assign(user="u" + frame["user"].astype(str), item=frame["item"].astype(str).str.zfill(3) + "é")
    return frame


CASES = {
    "ratings, strings": (lambda: EmbeddingDotTask(dim=4, std=0.3), True, {}),
    "multitask": (
        lambda: EmbeddingDotTask(dim=4, objective="multitask", ranking={"objective": "svd", "dim": 6}),
        False,
        {},
    ),
}  # few, for each exports


@pytest.fixture(scope="module", params=list(CASES))
def exported(request, tmp_path_factory, make_run):
    make, strings, options = CASES[request.param]
    folder = tmp_path_factory.mktemp("lists") / "run"
    data = make_run(folder, make_frame(strings), make(), table={"categories": "kind"}, **options)
    bundle = folder.parent / "bundle"
    assert front_door(["export", str(folder), str(bundle), "--with-history"]) == 0
    return data, load_task(folder / "checkpoints" / "best.ckpt"), Scorer.load(bundle)


def test_the_history_is_the_training_part(exported):
    data, _, scorer = exported
    train = data.table.frame[data.split.parts == TRAIN]
    value = next((name for name in ("rating", "weight") if name in train), None)
    for user in scorer.users():
        mine = train[train["user"] == user].sort_values("item")
        items, ratings = scorer.history(user)
        assert items.tolist() == mine["item"].tolist()
        assert ratings.tolist() == ([1.0] * len(mine) if value is None else mine[value].tolist())
    assert len(scorer.history("nobody" if scorer.manifest.user_ids == "string" else -7)[0]) == 0


def test_lists_have_nothing_of_it(exported):
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
    lists = scorer.lists(scorer.users(), 5)
    assert lists.items.tolist() == [i for top in scorer.recommend(scorer.users(), 5) for i in top.items.tolist()]


def test_the_catalogue_is_of_the_training_part(exported):
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


ALWAYS = {"score", "recommend", "similar", "filtered", "scores", "factors", "users", "fold_in", "explain"}


def test_without_an_option_items_travel_and_ratings_do_not(bundle):
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert set(manifest["graphs"]) == ALWAYS | {"seen"}
    scorer = Scorer.load(bundle)
    with pytest.raises(UnsupportedError):
        scorer.history(1)
    assert set(scorer.catalogue.categories) == {"Drama"}


@pytest.mark.parametrize(
    "options",
    [
        {"split": {"method": "leave_last"}},
        {"split": {"val_method": "per_user", "val_fraction": 0.3}},
        {"min_rating": 4, "feedback": "implicit"},
    ],
    ids=["leave_last", "validation", "min_rating"],
)
def test_no_list_has_an_item_of_which_the_table_had_a_row(tmp_path, options, make_run):
    frame = make_frame().assign(timestamp=range(40 * 25 // 3))
    objective = "ials" if "feedback" in options else "mse"
    make_run(tmp_path / "run", frame, EmbeddingDotTask(dim=2, objective=objective), **options)
    scorer = Scorer.load(export_bundle(tmp_path / "run", tmp_path / "bundle"))
    users, known = scorer.users(), set(scorer.catalogue.ids.tolist())
    rows = {user: known & set(frame["item"][frame["user"] == user]) for user in users.tolist()}
    everything = scorer.recommend(users, 25)
    assert [set(top.items.tolist()) for top in everything] == [known - rows[user] for user in users.tolist()]
    lists = scorer.lists(users, 25)
    assert lists.items.tolist() == [item for top in everything for item in top.items.tolist()]
    assert set(scorer.recommend(int(users[0]), 25, exclude_seen=False).items.tolist()) == known


def test_rows_stay_out_where_that_is_asked(run, tmp_path, capsys):
    assert front_door(["export", str(run), str(tmp_path / "bundle"), "--without-history"]) == 0
    assert "recommendations include seen items" in capsys.readouterr().out
    scorer = Scorer.load(tmp_path / "bundle")
    assert set(scorer.manifest.graphs) == ALWAYS
    assert len(scorer.recommend(1, 1000).items) == scorer.manifest.num_items - 1
    with pytest.raises(UnsupportedError, match="seen"):
        scorer.recommend(1, exclude_seen=True)


def test_a_bundle_without_its_table_says_so(small, tmp_path, capsys, caplog):
    (tmp_path / "table.csv").rename(tmp_path / "elsewhere.csv")
    assert front_door(["export", str(small), str(tmp_path / "bundle")]) == 0
    [warning] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "table.csv" in warning
    assert "--without-history" in warning
    assert "\n" not in warning
    assert "recommendations include seen items" in capsys.readouterr().out
    assert "seen" not in Scorer.load(tmp_path / "bundle").manifest.graphs


def test_items_of_rows_are_stored_once(exported):
    _, _, scorer = exported
    entries = []
    for question in ("seen", "history"):
        graph = onnx.load(scorer.manifest.path(question), load_external_data=False).graph
        [items] = [tensor for tensor in graph.initializer if tensor.name == "items"]
        entries.append((items.data_type, items.raw_data, [(entry.key, entry.value) for entry in items.external_data]))
    assert entries[0] == entries[1]
    assert entries[0][0] == onnx.TensorProto.UINT16


def test_a_run_of_the_command_line(run):
    vocabulary = load_task(run / "checkpoints" / "best.ckpt").vocabulary
    rows = training_rows(training_data(run / "checkpoints" / "best.ckpt", vocabulary, None), vocabulary)
    assert np.bincount(rows.item)[1:].tolist() == vocabulary.counts.tolist()


@pytest.mark.parametrize("options", [{"table": {"weight": "rating"}}, {"min_rating": 3}])
def test_choices_count_as_much_as_they_weigh(tmp_path, options, make_run):
    task = EmbeddingDotTask(dim=2, objective="ials")
    data = make_run(tmp_path / "run", make_frame(strings=True), task, feedback="implicit", **options)
    path = tmp_path / "run" / "checkpoints" / "best.ckpt"
    rows = training_rows(training_data(path, task.vocabulary, len(data.training_pairs()[0])), task.vocabulary)
    train = data.table.frame[data.split.parts == TRAIN].sort_values(["user", "item"])
    assert task.vocabulary.users.values[rows.user - 1].tolist() == train["user"].tolist()
    assert task.vocabulary.items.values[rows.item - 1].tolist() == train["item"].tolist()
    assert rows.rating.tolist() == (train["weight"].tolist() if "weight" in train else [1.0] * len(train))


def test_tables_of_lists_are_shared_with_the_other_graphs(bundle):
    places = {}
    for path in bundle.glob("*.onnx"):
        onnx.checker.check_model(str(path))
        for tensor in onnx.load(path, load_external_data=False).graph.initializer:
            entry = {e.key: e.value for e in tensor.external_data}
            if entry and int(entry["length"]) == 41 * 8 * 4:
                places.setdefault(path.stem, set()).add(entry["offset"])
    assert len({frozenset(places[name]) for name in ("recommend", "filtered", "scores", "factors", "similar")}) == 1


def test_old_checkpoints_have_no_counts(run, tmp_path):
    vocabulary = load_task(run / "checkpoints" / "best.ckpt").vocabulary
    name = write_catalogue(tmp_path, replace(vocabulary, counts=None, categories={}))
    assert name == "catalogue.json.gz"
    catalogue = json.loads(gzip.decompress((tmp_path / name).read_bytes()))
    assert catalogue == {"item": vocabulary.items.values.tolist(), "count": None, "categories": {}}


@pytest.mark.parametrize("different", [3, 9000])
@pytest.mark.parametrize("strings", [False, True])
def test_histories_of_many_ratings_are_packed_and_found(different, strings):
    rng = np.random.default_rng(1)
    frame = make_frame(strings)
    vocabulary = Vocabulary.learn(RatingTable.from_frame(frame, "synthetic"), slice(None))
    user, item = vocabulary.users.indices(frame["user"]), vocabulary.items.indices(frame["item"])
    order = np.lexsort((item, user))
    keep = order[user[order] != 7]  # a user without any
    rating = rng.integers(0, different, len(keep)).astype(np.float32) / 7
    trained = np.ones(len(keep), bool)
    model = history_graph(SeenRows(user[keep], item[keep], trained, rating), vocabulary)
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert types["items"] == onnx.TensorProto.UINT16
    assert ("codes" in types) == (different == 3)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    stranger = "nobody" if strings else -1
    ids = [vocabulary.users.values[row - 1] if row else stranger for row in (3, 7, 0, 40, 3, 1, 7)]
    for users in (ids, ids[1:2], ids[2:3], [], ids[3:4]):
        given = np.array(users, dtype=vocabulary.users.values.dtype)
        found_item, place, found_rating, position = session.run(None, {"user": given})
        expected = [np.flatnonzero(user[keep] == row) for row in vocabulary.users.indices(given)]
        numbers = np.concatenate([*expected, np.empty(0, np.int64)]).astype(np.int64)
        assert position.tolist() == np.repeat(np.arange(len(users)), [len(part) for part in expected]).tolist()
        assert (place + 1).tolist() == item[keep][numbers].tolist()
        assert found_item.tolist() == vocabulary.items.values[place].tolist()
        assert found_rating.tolist() == rating[numbers].tolist()


def test_ratings_that_an_objective_did_not_see_are_no_weights(tmp_path, make_run):
    frame = make_frame()
    make_run(tmp_path / "run", frame, EmbeddingDotTask(dim=4, objective="ials"))
    scorer = Scorer.load(export_bundle(tmp_path / "run", tmp_path / "bundle", with_history=True))
    user = int(frame["user"][0])
    items, counted = scorer.history(user)
    assert len(items) > 2
    assert counted.tolist() == [1.0] * len(items)
    by_history, alike = scorer.explain(user, int(items[0])), scorer.explain(user, int(items[0]), items=items)
    np.testing.assert_array_equal(by_history.contributions, alike.contributions)


# Histories that cannot be found again ---------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path, make_run):
    folder = tmp_path / "run"
    make_run(folder, make_frame(), EmbeddingDotTask(dim=2))
    return folder


def refuse(source, tmp_path, says):
    with pytest.raises(ExportError, match=says) as raised:
        export_bundle(source, tmp_path / "bundle", with_history=True)
    assert str(raised.value).startswith("--with-history: ")
    assert not (tmp_path / "bundle").exists()


def test_a_bare_checkpoint_knows_where_its_table_lies(small, tmp_path, monkeypatch):
    shutil.copy(small / "checkpoints" / "best.ckpt", tmp_path / "bare.ckpt")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert "seen" in Scorer.load(export_bundle(tmp_path / "bare.ckpt", tmp_path / "bundle")).manifest.graphs


def test_a_bare_checkpoint_has_none_where_its_table_is_gone(small, tmp_path):
    shutil.copy(small / "checkpoints" / "best.ckpt", tmp_path / "bare.ckpt")
    (tmp_path / "table.csv").unlink()
    refuse(tmp_path / "bare.ckpt", tmp_path, "must lie in a run folder")


def test_data_that_moved(small, tmp_path):
    (tmp_path / "table.csv").rename(tmp_path / "elsewhere.csv")
    refuse(small, tmp_path, "cannot be read .*does not exist.*put it back")


@pytest.mark.parametrize("change", ["rows", "users", "the same counts"])
def test_data_that_changed(small, tmp_path, change):
    frame = pd.read_csv(tmp_path / "table.csv")
    if change == "rows":
        frame = frame[5:]
    elif change == "users":
        frame["user"] += 1
    else:
        frame["item"] = frame["item"].to_numpy()[::-1]
        frame = frame.drop_duplicates(["user", "item"])
    frame.to_csv(tmp_path / "table.csv", index=False)
    refuse(small, tmp_path, "must be the data that .* was trained on")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("data: {class_path: os.system, init_args: {}}", "must be a cflightning.RatingsDataModule, got os.system"),
        ("data: {class_path: cflightning.RatingsDataModule, init_args: {colour: red}}", "options cannot be used"),
        ("data: [1]", "must describe the data"),
        ("model: {}", "must describe the data"),
        ("{", "must describe the data"),
        ("data: !!python/object/apply:os.getcwd []", "must describe the data"),
    ],
)
def test_configs_that_cannot_be(small, tmp_path, text, says):
    (small / "config.yaml").write_text(text)
    (tmp_path / "table.csv").rename(tmp_path / "elsewhere.csv")  # or the checkpoint would lead to it
    refuse(small, tmp_path, says)


@pytest.mark.parametrize("exported", ["multitask"], indirect=True)
@pytest.mark.parametrize("graph", ["filtered", "scores", "factors", "users", "seen", "history"])
def test_a_graph_that_differs_is_found(exported, tmp_path, graph):
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
