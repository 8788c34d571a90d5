"""Commands that start from a checkpoint: its data settings are used, and other data is recognised."""

import contextlib
import csv
import hashlib
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from cflightning.__main__ import main as front_door
from cflightning.cli.training.cli import TrainingCLI
from cflightning.evaluation.run_metrics import read_metrics

QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]
SMALL = ["--model.objective", "mse", "--model.dim", "4", "--trainer.max_epochs", "1", "--data.split.val_fraction",
         "0.05"]  # fmt: skip


def rows(n=900, seed=0):
    rng = np.random.default_rng(seed)
    pairs = rng.permutation(60 * 40)[:n]
    users = [f"u{pair // 40}" for pair in pairs]
    made = pd.DataFrame({"who": users, "what": pairs % 40, "stars": rng.integers(1, 6, n)})
    return made.assign(when=np.arange(n))


OF_TABLE = [
    "--data.table.user",
    "who",
    "--data.table.item",
    "what",
    "--data.table.rating",
    "stars",
    "--data.table.timestamp",
    "when",
]


def fit(folder, *more):
    path = folder / "table.csv"
    if not path.exists():
        rows().to_csv(path, index=False)
    return TrainingCLI(["fit", "--data.path", str(path), "--trainer.default_root_dir", str(folder / "runs"),
                 *OF_TABLE, *SMALL, *QUIET, *more])  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on a table with names, times and a split of its own."""
    folder = tmp_path_factory.mktemp("trained")
    fit(folder, "--data.split.method", "time", "--data.split.seed", "5")
    return folder


@pytest.fixture(scope="module")
def hashed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hashed")
    fit(folder, "--data.split.method", "hash")
    return folder


@pytest.fixture
def own(trained, tmp_path, monkeypatch):
    """A copy of the run's folder of runs, as the current folder."""
    shutil.copytree(trained / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs" / "version_0"


def contents(folder):
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.mark.slow
def test_a_checkpoint_is_tested_on_its_own_data(own, trained):
    expected = read_metrics(own / "metrics.json")
    tested = TrainingCLI(["test", "--ckpt_path", "best", *QUIET])
    assert float(tested.trainer.callback_metrics["test/rmse"]) == pytest.approx(expected["test/rmse"], abs=1e-12)
    assert tested.datamodule.table.name == str(trained / "table.csv")
    validated = TrainingCLI(["validate", "--ckpt_path", "best", *QUIET])
    assert float(validated.trainer.callback_metrics["val/rmse"]) == pytest.approx(expected["val/rmse"], abs=1e-12)


@pytest.mark.slow
def test_fit_continues_with_the_data_of_its_checkpoint(own, trained):
    cli = TrainingCLI(["fit", "--ckpt_path", "last", *QUIET, "--trainer.max_epochs", "2"])
    assert cli.datamodule.settings["path"] == str(trained / "table.csv")
    assert cli.datamodule.settings["split"]["seed"] == 5
    assert cli.datamodule.split_method == "time"
    assert cli.run_folder().samefile(own)
    assert read_metrics(own / "metrics.json")["epochs"] == 2
    assert [path.name for path in own.parent.iterdir()] == ["version_0"]


@pytest.mark.slow
def test_options_take_precedence_over_the_checkpoint(own):
    cli = TrainingCLI(["fit", "--ckpt_path", "last", *QUIET, "--trainer.max_epochs", "2",
                "--data.eval_batch_size", "100"])  # fmt: skip
    assert cli.datamodule.eval_batch_size == 100
    assert cli.datamodule.split_method == "time"


@pytest.mark.slow
@pytest.mark.parametrize("what", ["grown", "other ids"])
def test_other_data_do_not_change_a_run(own, tmp_path, what, capsys):
    other = rows(1200) if what == "grown" else rows(seed=4).assign(who=lambda table: table["who"].str[1:])
    other.to_csv(tmp_path / "other.csv", index=False)
    before = contents(tmp_path / "runs")
    for command in ("fit", "test"):
        assert front_door([command, "--ckpt_path", "last", "--data.path", "other.csv", *QUIET]) == 2
        assert "that the checkpoint was trained on" in capsys.readouterr().err.splitlines()[-1]
    assert front_door(["fit", "--ckpt_path", "last", "--data.source", "synthetic", *QUIET]) == 2
    assert contents(tmp_path / "runs") == before


def test_the_table_can_be_moved(own, trained, tmp_path):
    shutil.copy(trained / "table.csv", tmp_path / "moved.csv")
    expected = read_metrics(own / "metrics.json")["test/rmse"]
    tested = TrainingCLI(["test", "--ckpt_path", "best", "--data.path", "moved.csv", *QUIET])
    assert float(tested.trainer.callback_metrics["test/rmse"]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.slow
def test_a_grown_table_is_tested_on_rows_that_did_not_train(hashed, tmp_path, monkeypatch, capsys):
    shutil.copytree(hashed / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    rows(1500).sample(frac=1, random_state=1).to_csv("grown.csv", index=False)
    given = ["--data.path", "grown.csv", *QUIET]
    before = contents(tmp_path / "runs")
    tested = TrainingCLI(["test", "--ckpt_path", "best", *given])
    seen = torch.load(tmp_path / "runs/version_0/checkpoints/best.ckpt", weights_only=True)["cflightning"]["data"]
    assert seen["rows"] == 900
    old = rows()[["who", "what"]].apply(tuple, axis=1)
    table = tested.datamodule.table.frame
    test = set(table.iloc[tested.datamodule.split.test][["user", "item"]].itertuples(index=False, name=None))
    trained = set(old) - test
    assert len(set(old) & test) > 50
    again = front_door(["test", "--ckpt_path", "best", *QUIET])  # on its own table
    assert again == 0
    assert front_door(["fit", "--ckpt_path", "last", *given]) == 2
    assert "--data.other_data true" in capsys.readouterr().err
    cli = TrainingCLI(["fit", "--ckpt_path", "last", *given, "--data.other_data", "true", "--trainer.max_epochs", "2"])
    after = contents(tmp_path / "runs")
    assert {name: digest for name, digest in after.items() if name in before} == before
    assert cli.run_folder().name == "version_1"
    assert not trained & set(
        cli.datamodule.table.frame.iloc[cli.datamodule.split.test][["user", "item"]].itertuples(index=False, name=None)
    )


def test_predict_needs_a_table(own, tmp_path, capsys):
    assert front_door(["predict", "--ckpt_path", "best", *QUIET]) == 2
    assert "--data.path: must name the table whose rows are to be scored" in capsys.readouterr().err
    (tmp_path / "pairs.csv").write_text("who,what\nu1,3\nu2,4\n")
    TrainingCLI(["predict", "--ckpt_path", "best", "--data.path", "pairs.csv", *QUIET])
    found = list(csv.DictReader((tmp_path / "runs" / "predictions.csv").read_text().splitlines()))
    assert [(row["user"], row["item"], row["known"]) for row in found] == [("u1", "3", "1"), ("u2", "4", "1")]


@pytest.mark.slow
def test_a_checkpoint_without_data_settings_can_be_tested(own, trained, tmp_path):
    path = own / "checkpoints" / "best.ckpt"
    content = torch.load(path, weights_only=True)
    del content["cflightning"]["data"]
    torch.save(content, tmp_path / "old.ckpt")
    given = ["--data.path", str(trained / "table.csv"), *OF_TABLE, "--data.split.method", "time"]
    expected = read_metrics(own / "metrics.json")["test/rmse"]
    tested = TrainingCLI(["test", "--ckpt_path", "old.ckpt", *given, *QUIET])
    assert float(tested.trainer.callback_metrics["test/rmse"]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.slow
def test_a_checkpoint_names_no_class_and_no_file_of_data(own, tmp_path, capsys):
    path = own / "checkpoints" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    (tmp_path / "payload.py").write_text("import os; os.mkdir('marker')\n")
    made = {"path": None, "source": "synthetic"}
    for change in ({**made, "synthetic": {"class_path": "payload.Evil"}}, {**made, "synthetic": "payload.evil"},
                   {"columns": "payload.evil"}, {"path": "/dev/zero"}, {"class_path": "payload.Evil"},
                   {"path": "http://host/x.csv"}):  # fmt: skip
        settings = content["cflightning"]["data"]["settings"]
        content["cflightning"]["data"]["settings"] = settings | change
        torch.save(content, tmp_path / "hostile.ckpt")
        content["cflightning"]["data"]["settings"] = settings
        with contextlib.suppress(SystemExit):  # a type that no option accepts
            assert front_door(["fit", "--ckpt_path", "hostile.ckpt", *QUIET]) == 2, change
    assert not (tmp_path / "marker").exists()
    assert "Traceback" not in capsys.readouterr().err
