"""The training commands, in this process and in another one."""

import csv
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import torch

from cflightning.__main__ import main as front_door
from cflightning.cli.imports import importing_torch
from cflightning.cli.run_folders import claim_run
from cflightning.cli.training.cli import TrainingCLI
from cflightning.errors import CheckpointError, TrainingError
from cflightning.evaluation.run_metrics import read_metrics

QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu", "--data.split.val_fraction", "0.05"]


def command(*args, timeout=120, **options):
    return subprocess.run(
        [sys.executable, "-m", "cflightning", *map(str, args)],
        capture_output=True,
        text=True,
        timeout=timeout,
        **options,
    )


def test_help_needs_no_torch():
    code = (
        "import sys; from cflightning.__main__ import main; status = main(['--help']);"
        "heavy = {'torch', 'lightning', 'pandas', 'numpy'} & set(sys.modules); sys.exit(status or bool(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done
    for word in ("fit", "validate", "test", "predict", "kfold", "tune", "export", "cflightning_serve", "examples:"):
        assert word in done.stdout


def test_version_and_unknown_commands(capsys):
    assert front_door([]) == 2
    assert front_door(["--version"]) == 0
    assert front_door(["train"]) == 2
    assert "no command 'train'; python -m cflightning --help" in capsys.readouterr().err


@pytest.mark.parametrize("given", [None, "ACTIVE"])
def test_waiting_threads_sleep_unless_the_user_sets_a_policy(monkeypatch, given):
    names = "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"
    monkeypatch.setenv("GOMP_SPINCOUNT", "")
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", given or "")
    if given is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    with importing_torch():
        assert [os.environ.get(name) for name in names] == (["PASSIVE", "2000"] if given is None else [given, None])


@pytest.mark.parametrize("name", ["fit", "test"])
def test_help_of_a_command_documents_data_and_model(name, capsys):
    with pytest.raises(SystemExit) as done:
        TrainingCLI([name, "--help"])
    assert done.value.code == 0
    out = capsys.readouterr().out
    assert "--data.path" in out or "--data.help" in out
    assert "--trainer.devices" in out


def test_fit_writes_a_run_folder(run):
    names = {path.name for path in run.rglob("*")}
    assert {"metrics.json", "metrics.csv", "config.yaml", "best.ckpt", "last.ckpt"} <= names
    metrics = read_metrics(run / "metrics.json")
    assert {
        "test/rmse", "test/mae", "val/rmse", "val/mae", "train/loss", "train/ratings_per_second", "epochs",
        "seconds/data", "seconds/train", "seconds/validate", "seconds/test", "seconds/total",
    } <= set(metrics)  # fmt: skip
    assert 0 < metrics["test/rmse"] < 5
    assert metrics["seconds/train"] < metrics["seconds/total"]
    rows = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
    assert len([row for row in rows if row["val/rmse"]]) == 3
    best = min(float(row["val/rmse"]) for row in rows if row["val/rmse"])
    assert metrics["val/rmse"] == pytest.approx(best)


def test_metrics_are_those_of_the_best_epoch(run, movielens, tmp_path):
    # `fit` and `test` report the same metrics of the checkpoint.
    metrics = read_metrics(run / "metrics.json")
    cli = TrainingCLI(
        ["test", "--config", str(run / "config.yaml"), "--ckpt_path", str(run / "checkpoints" / "best.ckpt"), *QUIET]
    )
    assert float(cli.trainer.callback_metrics["test/rmse"]) == pytest.approx(metrics["test/rmse"], abs=1e-12)
    cli = TrainingCLI(
        [
            "validate",
            "--config",
            str(run / "config.yaml"),
            "--ckpt_path",
            str(run / "checkpoints" / "best.ckpt"),
            *QUIET,
        ]
    )
    assert float(cli.trainer.callback_metrics["val/rmse"]) == pytest.approx(metrics["val/rmse"], abs=1e-12)


@pytest.mark.slow
def test_output_of_the_first_fit_and_export(movielens, tmp_path):
    done = command("fit", "--data.path", movielens("ml-100k", 40, 30), "--trainer.max_epochs", 2, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "test RMSE 1." in done.stdout
    assert "MAE" in done.stdout
    assert "best checkpoint  runs/version_0/checkpoints/best.ckpt" in done.stdout
    assert "next             python -m cflightning export runs/version_0 bundle" in done.stdout
    assert "540 train, 0 val, 60 test (random); too few rows for a validation part" in done.stderr
    assert "Warning" not in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "runs" / "version_0" / "metrics.json").is_file()
    again = command("export", "runs/version_0", "bundle", cwd=tmp_path)
    assert again.returncode == 0, again.stderr[-3000:]
    assert "agrees with torch" in again.stdout
    assert "python -m cflightning_serve recommend bundle --user 1 --k 10" in again.stdout
    assert "Warning" not in again.stderr
    answer = subprocess.run(
        [sys.executable, "-m", "cflightning_serve", "recommend", "bundle", "--user", "1", "--k", "3", "--json"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    assert "Film" in answer.stdout or "Toy Story" in answer.stdout or "Caf" in answer.stdout


def test_predict_writes_scores_in_the_order_of_the_table(run, tmp_path):
    (tmp_path / "pairs.csv").write_text("user,item\n5,3\n1,1\n999,3\n1,999\n")
    TrainingCLI(
        [
            "predict",
            "--data.path",
            str(tmp_path / "pairs.csv"),
            "--ckpt_path",
            str(run / "checkpoints" / "best.ckpt"),
            "--trainer.default_root_dir",
            str(tmp_path),
            *QUIET,
        ]
    )
    rows = list(csv.DictReader((tmp_path / "predictions.csv").read_text().splitlines()))
    assert [(row["user"], row["item"], row["known"]) for row in rows] == [
        ("5", "3", "1"), ("1", "1", "1"), ("999", "3", "0"), ("1", "999", "0"),
    ]  # fmt: skip
    from cflightning.tasks.loading import load_task

    task = load_task(run / "checkpoints" / "best.ckpt")
    with torch.no_grad():
        expected = task(torch.tensor([5]), torch.tensor([3])).item()
    assert float(rows[0]["score"]) == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one(movielens, tmp_path):
    folder = str(movielens("ml-1m", 60, 40))

    def fit(root, epochs, *more):
        return TrainingCLI(["fit", "--data.path", folder, "--trainer.default_root_dir", str(tmp_path / root), *QUIET,
                     "--trainer.max_epochs", str(epochs), "--early_stopping.patience", "99", *more])  # fmt: skip

    # A rate so high that the best epoch is an early one: `last` must still be the last.
    flags = ["--model.dim", "4", "--optimizer", "Adam", "--optimizer.lr", "0.2", "--lr_scheduler", "ConstantLR"]
    whole = fit("whole", 5, *flags)
    assert type(whole.trainer.optimizers[0]).__name__ == "Adam"
    fit("parts", 3, *flags)
    fit("parts", 5, "--ckpt_path", "last")  # the run's own settings hold: no flags again
    run = tmp_path / "parts" / "version_0"
    assert [path.name for path in run.parent.iterdir()] == ["version_0"]
    for name in ("last", "best"):
        old, new = (torch.load(at / "checkpoints" / f"{name}.ckpt", weights_only=True)
                    for at in (tmp_path / "whole" / "version_0", run))  # fmt: skip
        assert old["epoch"] == new["epoch"] == (4 if name == "last" else old["epoch"])
        for key, value in old["state_dict"].items():
            assert torch.equal(value, new["state_dict"][key]), (name, key)
    old, new = (read_metrics(at / "metrics.json") for at in (tmp_path / "whole" / "version_0", run))
    for key in ("test/rmse", "test/mae", "val/rmse", "epochs"):
        assert old[key] == new[key], key
    # Nothing that was logged is lost.
    rows = [(run / name).read_text().count("\n") for name in ("metrics.1.csv", "metrics.csv")]
    assert rows[0] > 3
    assert rows[1] > 2


@pytest.mark.slow
def test_best_of_the_newest_run_and_run_folders(run, movielens, tmp_path):
    expected = read_metrics(run / "metrics.json")["test/rmse"]
    data = ["--data.path", str(movielens("ml-latest-small", 60, 40))]
    for given in ("best", str(run)):
        cli = TrainingCLI(["test", "--ckpt_path", given, "--trainer.default_root_dir", str(run.parent), *data, *QUIET])
        assert float(cli.trainer.callback_metrics["test/rmse"]) == pytest.approx(expected, abs=1e-12)
    with pytest.raises(CheckpointError, match="--ckpt_path last: needs a run to continue"):
        TrainingCLI(["fit", "--ckpt_path", "last", "--trainer.default_root_dir", str(tmp_path), *data, *QUIET])


@pytest.mark.slow
def test_without_validation_every_row_trains_and_the_last_epoch_is_kept(movielens, tmp_path):
    cli = TrainingCLI(
        [
            "fit",
            *QUIET,
            "--data.path",
            str(movielens("ml-1m")),
            "--data.split.val_fraction",
            "0",
            "--trainer.max_epochs",
            "2",
            "--trainer.default_root_dir",
            str(tmp_path),
        ]
    )
    assert len(cli.datamodule.split.train) == 135
    metrics = read_metrics(next(tmp_path.rglob("metrics.json")))
    assert "val/rmse" not in metrics
    assert metrics["epochs"] == 2
    assert next(tmp_path.rglob("best.ckpt")).is_file()


@pytest.mark.slow
def test_every_metric_is_of_the_kept_epoch(movielens, tmp_path):
    # A rate that over-fits, so that the best epoch is not the last.
    TrainingCLI(
        [
            "fit",
            "--data.path",
            str(movielens("ml-1m", 60, 40)),
            "--trainer.default_root_dir",
            str(tmp_path),
            *QUIET,
            "--model.learning_rate",
            "0.2",
            "--model.l2",
            "0",
            "--trainer.max_epochs",
            "6",
        ]
    )
    metrics = read_metrics(tmp_path / "version_0" / "metrics.json")
    rows = list(csv.DictReader((tmp_path / "version_0" / "metrics.csv").read_text().splitlines()))
    validated = [row for row in rows if row["val/rmse"]]
    best = min(validated, key=lambda row: float(row["val/rmse"]))
    assert best is not validated[-1]
    assert metrics["val/mae"] == pytest.approx(float(best["val/mae"]))
    [loss] = [float(row["train/loss"]) for row in rows if row["train/loss"] and row["epoch"] == best["epoch"]]
    assert metrics["train/loss"] == pytest.approx(loss)


@pytest.mark.slow
def test_diverged_training_is_an_error_with_valid_json(movielens, tmp_path):
    with pytest.raises(TrainingError, match=r"test/rmse.* lower --model.learning_rate"):
        TrainingCLI(["fit", "--data.path", str(movielens("ml-1m")), "--trainer.default_root_dir", str(tmp_path), *QUIET,
              "--model.learning_rate", "1e30", "--model.sigmoid", "false"])  # fmt: skip
    text = (tmp_path / "version_0" / "metrics.json").read_text()
    assert "NaN" not in text
    assert "test/rmse" not in read_metrics(tmp_path / "version_0" / "metrics.json")


def test_simultaneous_runs_get_different_folders(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: claim_run(tmp_path, None, ExitStack()), range(8)))
    assert len(set(found)) == 8


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.ModelCheckpoint.monitor='val/rmse'.. could not find")
@pytest.mark.parametrize("flags", [["--trainer.max_steps", "2"], ["--trainer.limit_val_batches", "0"]])
def test_runs_that_never_validate(movielens, tmp_path, flags):
    TrainingCLI(
        [
            "fit",
            "--data.path",
            str(movielens("ml-1m", 60, 40)),
            "--trainer.default_root_dir",
            str(tmp_path),
            *flags,
            *QUIET,
        ]
    )
    assert read_metrics(tmp_path / "version_0" / "metrics.json")["test/rmse"] > 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--trainer.enable_checkpointing", "false"], "enable_checkpointing: must be true"),
        (["--model.dim", "0"], "--model.dim: must be at least 1"),
        (["--model.margin", "-1"], "--model.margin: must not be negative"),
        (["--ckpt_path", "nothing.ckpt"], "nothing.ckpt: must be a checkpoint file"),
        (
            [
                "--data.split.val_fraction",
                "0",
                "--lr_scheduler",
                "ReduceLROnPlateau",
                "--lr_scheduler.monitor",
                "val/rmse",
            ],
            "val/rmse",
        ),
    ],
)
def test_options_that_exclude_each_other_give_one_line(movielens, tmp_path, args, message, capsys):
    data = ["--data.path", str(movielens("ml-1m")), "--trainer.default_root_dir", str(tmp_path)]
    assert front_door(["fit", *data, *QUIET, *args]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "cflightning: " in err


def test_a_bad_table_leaves_no_run_folder(tmp_path):
    (tmp_path / "bad.csv").write_text("user,item,rating\n1,2,x\n")
    runs = tmp_path / "runs"
    assert front_door(["fit", "--data.path", str(tmp_path / "bad.csv"), "--trainer.default_root_dir", str(runs)]) == 2
    assert not runs.exists()


def test_limited_predictions_are_of_the_rows_that_were_scored(run, tmp_path):
    (tmp_path / "pairs.csv").write_text("user,item\n" + "".join(f"{i},{i}\n" for i in range(1, 10)))
    TrainingCLI(["predict", "--data.path", str(tmp_path / "pairs.csv"), "--ckpt_path", str(run), *QUIET,
          "--data.eval_batch_size", "2", "--trainer.limit_predict_batches", "2",
          "--trainer.default_root_dir", str(tmp_path)])  # fmt: skip
    rows = list(csv.DictReader((tmp_path / "predictions.csv").read_text().splitlines()))
    assert [row["user"] for row in rows] == ["1", "2", "3", "4"]


@pytest.mark.slow
def test_fast_dev_run_and_other_network(movielens, tmp_path, capsys):
    TrainingCLI(["fit", "--data.path", str(movielens("ml-1m")), "--trainer.fast_dev_run", "true",
          "--trainer.default_root_dir", str(tmp_path), *QUIET])  # fmt: skip
    cli = TrainingCLI(["fit", "--model", "EmbeddingMLPTask", "--model.hidden", "[8, 4]", "--model.dim", "4",
                "--data.path", str(movielens("ml-1m")), "--trainer.max_epochs", "1",
                "--trainer.default_root_dir", str(tmp_path), *QUIET])  # fmt: skip
    assert cli.model.network.first.out_features == 8


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--data.path", "nowhere"], "nowhere does not exist"),
        (["--data.split.method", "kfold"], "--data.split.fold: must be 1 to 5"),
        (["--data.batch_size", "0"], "batch_size"),
        (["--data.rating_range", "[5, 1]"], "low < high"),
    ],
)
def test_wrong_data_options_give_one_line(movielens, tmp_path, args, message, capsys):
    path = [] if "--data.path" in args else ["--data.path", str(movielens("ml-1m"))]
    assert front_door(["fit", *path, *args, "--trainer.default_root_dir", str(tmp_path), *QUIET]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_wrong_option_shows_no_traceback(tmp_path):
    done = command("fit", "--data.path", "nowhere", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("cflightning: --data.path")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_configs_parse_and_begin_with_a_description(repository, capsys):
    configs = sorted((repository / "configs").glob("*.yaml"))
    assert {"ml-100k.yaml", "ml-1m.yaml"} <= {path.name for path in configs}
    for path in configs:
        assert path.read_text().startswith("#"), f"{path.name}: the first line describes it"
        with pytest.raises(SystemExit) as done:
            TrainingCLI(["fit", "--config", str(path), "--data.path", "x", "--print_config"])
        assert done.value.code == 0
        assert "class_path" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("config", ["ml-100k.yaml", "ml-1m.yaml"])
def test_two_devices_from_the_command_line(repository, movielens, tmp_path, config):
    data = str(movielens(config.removesuffix(".yaml"), 60, 40))
    fit = ["fit", "--config", str(repository / "configs" / config), "--data.path", data,
           "--data.split.val_fraction", "0.05",
           "--trainer.max_epochs", "3"]  # fmt: skip
    two = ["--trainer.devices", "2", "--trainer.strategy", "ddp", *QUIET]
    TrainingCLI([*fit, "--trainer.default_root_dir", str(tmp_path / "one"), "--trainer.devices", "1", *QUIET])
    done = command(*fit, "--trainer.default_root_dir", tmp_path / "two", *two)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("best checkpoint") == 1  # one process speaks
    assert "Warning" not in done.stderr
    reports = [next((tmp_path / name).glob("version_*/metrics.json")) for name in ("one", "two")]
    one, two_ = (read_metrics(report) for report in reports)
    assert set(one) == set(two_)
    for name in [name for name in one if name.startswith(("test/", "val/"))] + ["train/loss"]:
        assert one[name] == pytest.approx(two_[name], abs=5e-7), name
    if config == "ml-1m.yaml":
        predict = ["predict", "--ckpt_path", str(reports[0].parent), "--data.path", data]
        TrainingCLI([*predict, "--trainer.default_root_dir", str(tmp_path / "one"), "--trainer.devices", "1", *QUIET])
        done = command(*predict, "--trainer.default_root_dir", tmp_path / "two", *two)
        assert done.returncode == 0, done.stderr[-3000:]
        scores = [(tmp_path / name / "predictions.csv").read_text() for name in ("one", "two")]
        assert scores[0] == scores[1]
        assert scores[0].count("\n") == 1201
