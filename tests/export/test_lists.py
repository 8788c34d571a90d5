"""What an exported bundle knows for lists: catalogue, history, factors, parts of the catalogue; against the run."""

import json
import shutil

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
import yaml
from lightning.pytorch import Trainer

import cflightning_export.bundle as module
from cflightning import EmbeddingDotTask, RatingsDataModule
from cflightning.__main__ import main as front_door
from cflightning.checkpoint import load_task
from cflightning.data.split import TRAIN
from cflightning.errors import ExportError
from cflightning_export import export_bundle
from cflightning_serve import Scorer, UnsupportedError


def make_run(folder, frame, task, **options):
    """A run folder, as the command line leaves it: config.yaml and checkpoints/best.ckpt."""
    (folder / "checkpoints").mkdir(parents=True)
    path = folder.parent / "table.csv"
    frame.to_csv(path, index=False)
    options |= {"path": str(path)}
    about = {"class_path": "cflightning.RatingsDataModule", "init_args": options}
    (folder / "config.yaml").write_text(yaml.safe_dump({"data": about}))
    data = RatingsDataModule(**options)
    fit = Trainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                  enable_model_summary=False, accelerator="cpu")  # fmt: skip
    fit.fit(task, data)
    fit.save_checkpoint(folder / "checkpoints" / "best.ckpt")
    return data


def make_frame(strings=False, users=40, items=25, seed=0):
    rng = np.random.default_rng(seed)
    pairs = rng.permutation(users * items)[: users * items // 3]
    frame = pd.DataFrame({"user": pairs // items, "item": pairs % items, "rating": rng.integers(1, 6, len(pairs))})
    frame["kind"] = np.where(frame["item"] % 2, "odd|all", "all")
    if strings:
        frame = frame.assign(user="u" + frame["user"].astype(str), item=frame["item"].astype(str).str.zfill(3) + "é")
    return frame


CASES = {
    "ratings": (lambda: EmbeddingDotTask(dim=4, std=0.3), False, {}),
    "ratings, strings": (lambda: EmbeddingDotTask(dim=4, std=0.3), True, {}),
    "choices": (lambda: EmbeddingDotTask(dim=4, objective="ials"), False, {"feedback": "choices", "min_rating": 3}),
    "weighted": (
        lambda: EmbeddingDotTask(dim=4, objective="ials"), True, {"feedback": "choices", "weight": "rating"},
    ),
    "both": (lambda: EmbeddingDotTask(dim=4, objective="both", ranking={"objective": "svd", "dim": 6}), False, {}),
}  # fmt: skip


@pytest.fixture(scope="module", params=list(CASES))
def exported(request, tmp_path_factory):
    make, strings, options = CASES[request.param]
    folder = tmp_path_factory.mktemp("lists") / "run"
    data = make_run(folder, make_frame(strings), make(), categories="kind", **options)
    bundle = export_bundle(folder, folder.parent / "bundle", with_history=True)
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
    train = data.table.frame[data.split.parts == TRAIN]
    for row, user in enumerate(scorer.users(), 1):
        seen = set(train["item"][train["user"] == user])
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


def test_without_the_option_no_training_row_travels(run, bundle):
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert set(manifest["graphs"]) == {"score", "recommend", "similar", "filtered", "scores", "factors", "users"}
    scorer = Scorer.load(bundle)
    with pytest.raises(UnsupportedError):
        scorer.history(1)
    assert set(scorer.catalogue.categories) == {"Drama"}


def test_a_run_of_the_command_line(run, tmp_path, capsys):
    assert front_door(["export", str(run), str(tmp_path / "bundle"), "--with-history"]) == 0
    capsys.readouterr()
    scorer = Scorer.load(tmp_path / "bundle")
    assert sum(len(scorer.history(user)[0]) for user in scorer.users()) == scorer.catalogue.counts.sum()


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
    content = torch.load(run / "checkpoints" / "best.ckpt")
    for key in ("counts", "categories"):
        del content["cflightning"][key]
    torch.save(content, tmp_path / "old.ckpt")
    scorer = Scorer.load(export_bundle(tmp_path / "old.ckpt", tmp_path / "bundle"))
    assert (scorer.catalogue.counts, scorer.catalogue.categories) == (None, {})
    with pytest.raises(UnsupportedError, match="min_count"):
        scorer.recommend(1, min_count=2)


# Histories that cannot be found again ---------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path):
    folder = tmp_path / "run"
    make_run(folder, make_frame(), EmbeddingDotTask(dim=2))
    return folder


def refuse(source, tmp_path, says):
    with pytest.raises(ExportError, match=says) as raised:
        export_bundle(source, tmp_path / "bundle", with_history=True)
    assert str(raised.value).startswith("--with-history: ")
    assert not (tmp_path / "bundle").exists()


def test_a_bare_checkpoint_has_none(small, tmp_path):
    shutil.copy(small / "checkpoints" / "best.ckpt", tmp_path / "bare.ckpt")
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
    refuse(small, tmp_path, says)


@pytest.mark.parametrize("graph", ["filtered", "scores", "factors", "users", "history"])
def test_a_graph_that_differs_is_found(small, tmp_path, monkeypatch, graph):
    share = module.share_weights

    def damage(models, path):
        for tensor in models[f"{graph}.onnx"].graph.initializer:
            values = onnx.numpy_helper.to_array(tensor)
            if values.ndim and len(values) > 20:
                tensor.CopyFrom(onnx.numpy_helper.from_array(np.roll(values, 1, axis=0), tensor.name))
        share(models, path)

    monkeypatch.setattr(module, "share_weights", damage)
    with pytest.raises(ExportError, match=rf"{graph}\.onnx"):
        export_bundle(small, tmp_path / "bundle", with_history=True)
    assert not (tmp_path / "bundle").exists()
