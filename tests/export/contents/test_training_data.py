"""The training data of a run, read again for an export."""

import shutil

import numpy as np
import pandas as pd
import pytest

from cflightning import EmbeddingDotTask
from cflightning.__main__ import main as front_door
from cflightning.data.splits.split import TRAIN
from cflightning.errors import ExportError
from cflightning.tasks.loading import load_task
from cflightning_export import export_bundle
from cflightning_export.contents.training_data import training_data, training_rows
from cflightning_serve import Scorer

from ..frames import make_frame


@pytest.fixture
def small(tmp_path, make_run):
    folder = tmp_path / "run"
    make_run(folder, make_frame(), EmbeddingDotTask(dim=2))
    return folder


def fails(source, tmp_path, says):
    with pytest.raises(ExportError, match=says) as raised:
        export_bundle(source, tmp_path / "bundle", with_history=True)
    assert str(raised.value).startswith("--with-history: ")
    assert not (tmp_path / "bundle").exists()


def test_training_rows_of_a_run_of_the_command_line(run):
    vocabulary = load_task(run / "checkpoints" / "best.ckpt").vocabulary
    rows = training_rows(training_data(run / "checkpoints" / "best.ckpt", vocabulary, None), vocabulary)
    assert np.bincount(rows.item)[1:].tolist() == vocabulary.counts.tolist()


@pytest.mark.parametrize("options", [{"table": {"weight": "rating"}}, {"min_rating": 3}])
def test_implicit_feedback_has_its_weights(tmp_path, options, make_run):
    task = EmbeddingDotTask(dim=2, objective="ials")
    data = make_run(tmp_path / "run", make_frame(strings=True), task, feedback="implicit", **options)
    path = tmp_path / "run" / "checkpoints" / "best.ckpt"
    rows = training_rows(training_data(path, task.vocabulary, len(data.training_pairs()[0])), task.vocabulary)
    train = data.table.frame[data.split.parts == TRAIN].sort_values(["user", "item"])
    assert task.vocabulary.users.values[rows.user - 1].tolist() == train["user"].tolist()
    assert task.vocabulary.items.values[rows.item - 1].tolist() == train["item"].tolist()
    assert rows.rating.tolist() == (train["weight"].tolist() if "weight" in train else [1.0] * len(train))


@pytest.mark.slow
def test_a_run_without_its_table_gives_a_bundle_without_seen_items_and_a_warning(small, tmp_path, capsys, caplog):
    (tmp_path / "table.csv").rename(tmp_path / "elsewhere.csv")
    assert front_door(["export", str(small), str(tmp_path / "bundle")]) == 0
    [warning] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "table.csv" in warning
    assert "--without-history" in warning
    assert "\n" not in warning
    assert "recommendations include seen items" in capsys.readouterr().out
    assert "seen" not in Scorer.load(tmp_path / "bundle").manifest.graphs


@pytest.mark.slow
def test_a_checkpoint_without_its_run_leads_to_the_table(small, tmp_path, monkeypatch):
    shutil.copy(small / "checkpoints" / "best.ckpt", tmp_path / "bare.ckpt")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert "seen" in Scorer.load(export_bundle(tmp_path / "bare.ckpt", tmp_path / "bundle")).manifest.graphs


def test_a_checkpoint_without_run_and_table_has_no_history(small, tmp_path):
    shutil.copy(small / "checkpoints" / "best.ckpt", tmp_path / "bare.ckpt")
    (tmp_path / "table.csv").unlink()
    fails(tmp_path / "bare.ckpt", tmp_path, "must lie in a run folder")


def test_moved_data_is_an_error(small, tmp_path):
    (tmp_path / "table.csv").rename(tmp_path / "elsewhere.csv")
    fails(small, tmp_path, "cannot be read .*does not exist.*put it back")


@pytest.mark.parametrize("change", ["rows", "users", "the same counts"])
def test_changed_data_is_an_error(small, tmp_path, change):
    frame = pd.read_csv(tmp_path / "table.csv")
    if change == "rows":
        frame = frame[5:]
    elif change == "users":
        frame["user"] += 1
    else:
        frame["item"] = frame["item"].to_numpy()[::-1]
        frame = frame.drop_duplicates(["user", "item"])
    frame.to_csv(tmp_path / "table.csv", index=False)
    fails(small, tmp_path, "must be the data that .* was trained on")


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
def test_a_wrong_config_is_an_error(small, tmp_path, text, says):
    (small / "config.yaml").write_text(text)
    (tmp_path / "table.csv").rename(tmp_path / "elsewhere.csv")  # or the checkpoint would lead to it
    fails(small, tmp_path, says)


@pytest.mark.slow
def test_ratings_that_the_objective_does_not_use_are_no_weights(tmp_path, make_run):
    frame = make_frame()
    make_run(tmp_path / "run", frame, EmbeddingDotTask(dim=4, objective="ials"))
    scorer = Scorer.load(export_bundle(tmp_path / "run", tmp_path / "bundle", with_history=True))
    user = int(frame["user"][0])
    items, counted = scorer.history(user)
    assert len(items) > 2
    assert counted.tolist() == [1.0] * len(items)
    by_history, alike = scorer.explain(user, int(items[0])), scorer.explain(user, int(items[0]), items=items)
    np.testing.assert_array_equal(by_history.contributions, alike.contributions)
