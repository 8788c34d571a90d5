"""The command `kfold`, from its options to its report."""

import json
import re
import statistics
import subprocess
import sys

import numpy as np
import pytest
import yaml

from cflightning import RatingsDataModule
from cflightning.__main__ import main as front_door
from cflightning.cli.kfold.command import parse
from cflightning.data import load
from cflightning.data.splits.options import SplitOptions
from cflightning.evaluation.run_metrics import read_metrics

QUICK = ["--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--model.dim", "4",
         "--data.split.val_fraction", "0.05"]  # fmt: skip


def kfold(root, *args):
    return front_door(["kfold", "--trainer.default_root_dir", str(root), *QUICK, *map(str, args)])


def report(root, number=0):
    return json.loads((root / f"kfold_{number}" / "kfold.json").read_text())


@pytest.fixture(scope="module")
def three(tmp_path_factory, movielens):
    """Three fitted folds of synthetic ratings."""
    root, data = tmp_path_factory.mktemp("kfold"), movielens("ml-1m", 40, 30)
    assert kfold(root, "--data.path", data, "--folds", 3) == 0
    return root, data


def test_help_needs_no_torch_and_describes_the_command():
    code = (
        "import sys\nfrom cflightning.__main__ import main\ntry: main(['kfold', '--help'])\n"
        "except SystemExit as end: sys.exit(end.code or bool({'torch', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done
    for word in ("--folds N", "--seeds N", "options of fit", "kfold.json", "u1 to u5"):
        assert word in " ".join(done.stdout.split())


def test_options_are_separated_from_those_of_fit():
    assert parse(["--data.path", "x", "--folds", "3", "--model.margin", "-1", "--seeds=2"]) == (
        ["--data.path", "x", "--model.margin", "-1"], 3, 2,
    )  # fmt: skip
    assert parse(["--data.split.folds", "3", "--fold", "1"]) == (["--data.split.folds", "3", "--fold", "1"], None, 1)
    assert parse([]) == ([], None, 1)


@pytest.mark.slow
def test_every_fold_has_a_run_and_the_report_has_their_metrics(three):
    root, data = three
    found = report(root)
    assert [(run["fold"], run["seed"]) for run in found["runs"]] == [(1, 0), (2, 0), (3, 0)]
    tested = []
    for run in found["runs"]:
        folder = root / "kfold_0" / run["folder"]
        assert read_metrics(folder / "metrics.json") == run["metrics"]
        assert (folder / "checkpoints" / "best.ckpt").is_file()
        assert (folder / "calibration.csv").is_file()
        config = yaml.safe_load((folder / "config.yaml").read_text())["data"]["init_args"]["split"]
        assert (config["method"], config["fold"], config["folds"]) == ("kfold", run["fold"], 3)
        module = RatingsDataModule(
            str(data), split=SplitOptions(method="kfold", fold=config["fold"], folds=config["folds"])
        )
        tested += module.split.test.tolist()
    assert sorted(tested) == list(range(600))
    for name in ("test/rmse", "test/baseline_mae", "val/rmse"):
        values = [run["metrics"][name] for run in found["runs"]]
        assert len(set(values)) == 3
        assert found["mean"][name] == pytest.approx(statistics.mean(values))
        assert found["sd"][name] == pytest.approx(np.std(values, ddof=1))
        assert found["se"][name] == pytest.approx(np.std(values, ddof=1) / 3**0.5)


def test_a_fold_has_the_metrics_of_fit(three, tmp_path):
    root, data = three
    split = ["--data.split.method", "kfold", "--data.split.folds", "3", "--data.split.fold", "2"]
    at = [
        "--data.path",
        str(data),
        "--trainer.default_root_dir",
        str(tmp_path),
        "--trainer.enable_progress_bar",
        "false",
    ]
    assert front_door(["fit", *QUICK, *split, *at]) == 0
    alone = read_metrics(tmp_path / "version_0" / "metrics.json")
    fold = report(root)["runs"][1]["metrics"]
    for name in alone:
        if not name.startswith("seconds") and "second" not in name:
            assert fold[name] == alone[name], name


@pytest.mark.slow
def test_finished_folds_are_kept_and_missing_ones_run(three, capsys, monkeypatch):
    root, data = three
    before = report(root)
    (root / "kfold_0" / before["runs"][1]["folder"] / "metrics.json").unlink()
    assert kfold(root, "--data.path", data, "--folds", 3, "--trainer.enable_progress_bar", "false") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("fold ")]
    assert [line.split()[-1] == "kept" for line in lines] == [True, False, True]
    after = report(root)
    assert [run["fold"] for run in after["runs"]] == [1, 3, 2]
    assert after["mean"]["test/rmse"] == pytest.approx(before["mean"]["test/rmse"], abs=1e-12)
    assert not (root / "kfold_1").exists()


@pytest.mark.slow
def test_another_configuration_or_other_data_is_another_study(three, movielens, tmp_path):
    root, data = three
    assert kfold(root, "--data.path", data, "--folds", 2, "--model.l2", "0.02") == 0
    assert [run["fold"] for run in report(root, 1)["runs"]] == [1, 2]
    assert len(report(root)["runs"]) == 3
    copy = tmp_path / "ratings.csv"
    rows = [f"{n % 20},{n % 19},{n % 5}\n" for n in range(200)]
    copy.write_text("user,item,rating\n" + "".join(rows))
    assert kfold(tmp_path, "--data.path", copy, "--folds", 2) == 0
    copy.write_text("user,item,rating\n" + "".join(rows[:-1]))
    assert kfold(tmp_path, "--data.path", copy, "--folds", 2) == 0
    assert report(tmp_path)["fingerprint"] != report(tmp_path, 1)["fingerprint"]


@pytest.mark.slow
def test_the_data_is_read_once(movielens, tmp_path, monkeypatch):
    read, load_table = [], load.load_table
    monkeypatch.setattr(load, "load_table", lambda *args, **options: read.append(1) or load_table(*args, **options))
    assert kfold(tmp_path, "--data.path", movielens("ml-1m"), "--data.split.folds", 3) == 0
    assert len(report(tmp_path)["runs"]) == 3
    assert len(read) == 1


@pytest.mark.slow
def test_an_interrupted_study_is_continued(movielens, tmp_path, monkeypatch):
    from cflightning.evaluation.ratings import RatingEvaluation

    write, data = RatingEvaluation.write, movielens("ml-1m")
    monkeypatch.setattr(
        RatingEvaluation, "write", lambda self, folder: 1 / 0 if "fold_2" in folder.name else write(self, folder)
    )
    with pytest.raises(ZeroDivisionError):
        kfold(tmp_path, "--data.path", data, "--folds", 3)
    assert [run["fold"] for run in report(tmp_path)["runs"]] == [1]
    monkeypatch.undo()
    assert kfold(tmp_path, "--data.path", data, "--folds", 3) == 0
    assert [run["fold"] for run in report(tmp_path)["runs"]] == [1, 2, 3]


@pytest.mark.slow
def test_seeds_of_every_fold_and_of_a_split_without_folds(movielens, tmp_path, capsys):
    data = ["--data.path", movielens("ml-1m")]
    assert kfold(tmp_path, *data, "--folds", 2, "--seeds", 2, "--model.seed", 5) == 0
    found = report(tmp_path)
    assert [(run["fold"], run["seed"]) for run in found["runs"]] == [(1, 5), (1, 6), (2, 5), (2, 6)]
    errors = [run["metrics"]["test/rmse"] for run in found["runs"]]
    assert len(set(errors)) == 4
    assert found["sd_over_seeds"]["test/rmse"] == pytest.approx(
        np.sqrt(np.mean([np.var(errors[:2], ddof=1), np.var(errors[2:], ddof=1)]))
    )
    assert "sd over seeds" in capsys.readouterr().out
    assert kfold(tmp_path, *data, "--folds", 1, "--seeds", 3, "--data.split.method", "time") == 0
    found = report(tmp_path, 1)
    assert [(run["fold"], run["seed"]) for run in found["runs"]] == [(None, 0), (None, 1), (None, 2)]
    assert found["sd"]["test/rmse"] > 0
    assert found["sd"]["test/baseline_rmse"] == 0
    assert (tmp_path / "kfold_1" / "seed_2" / "metrics.json").is_file()


@pytest.mark.slow
def test_two_processes_fit_the_folds_and_continue_together(movielens, tmp_path):
    data = ["--data.path", str(movielens("ml-1m", 40, 30)), "--folds", "3", "--model.engine", "autograd",
            "--data.split.val_fraction", "0.05"]  # fmt: skip
    assert kfold(tmp_path / "one", *data) == 0
    two = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.default_root_dir", str(tmp_path / "two")]
    for kept in (0, 2):
        done = subprocess.run(
            [sys.executable, "-m", "cflightning", "kfold", *QUICK, *data, *two],
            capture_output=True, text=True, timeout=200,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("test RMSE") == 1  # one process speaks
        assert done.stdout.count("kept") == kept
        assert not (tmp_path / "two" / "kfold_1").exists()
        for alone, both in zip(*(sorted(report(tmp_path / name)["runs"], key=lambda run: run["fold"])
                                 for name in ("one", "two")), strict=True):  # fmt: skip
            for name in alone["metrics"]:
                if name.startswith(("test/", "val/")):
                    assert alone["metrics"][name] == pytest.approx(both["metrics"][name], abs=5e-7), name
        (tmp_path / "two" / "kfold_0" / "fold_2_seed_0" / "metrics.json").unlink()


@pytest.fixture(scope="module")
def published(movielens):
    """A synthetic MovieLens 100K with all five folds."""
    folder = movielens("ml-100k")
    lines = (folder / "u.data").read_text().splitlines(keepends=True)
    for fold in range(5):
        (folder / f"u{fold + 1}.test").write_text("".join(lines[fold::5]))
        (folder / f"u{fold + 1}.base").write_text("".join(line for n, line in enumerate(lines) if n % 5 != fold))
    return folder


@pytest.mark.slow
def test_the_published_folds(published, repository, tmp_path, capsys):
    config = ["--config", repository / "configs" / "ml-100k.yaml", "--data.path", published]
    assert kfold(tmp_path, *config) == 0
    found = report(tmp_path)
    assert [run["fold"] for run in found["runs"]] == ["u1", "u2", "u3", "u4", "u5"]
    assert len({run["metrics"]["test/baseline_rmse"] for run in found["runs"]}) == 5
    config_of = yaml.safe_load((tmp_path / "kfold_0" / "fold_u4_seed_0" / "config.yaml").read_text())
    assert config_of["data"]["init_args"]["split"]["fold"] == "u4"
    out = capsys.readouterr().out
    assert re.search(r"\n +test RMSE +MAE +baseline", out)
    assert re.search(r"\nfold u5 seed 0 +\d\.\d{4} ", out)
    assert [line.split()[0] for line in out.splitlines()[-4:]] == ["mean", "sd", "se", "report"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--folds", "0"], "--folds: must be at least 1, got 0"),
        (["--seeds", "-1"], "--seeds: must be at least 1, got -1"),
        (["--folds", "151"], "fold 1 of 151 has no row to test (150 rows in all); choose fewer"),
        (["--data.split.folds", "1"], "--data.split.folds: must be at least 2, got 1"),
        (
            ["--data.split.method", "time"],
            "--data.split.method: must be kfold or predefined for several folds, got time",
        ),
        (["--data.split.method", "predefined", "--folds", "4"], "--folds: must be 5 (u1 to u5 of MovieLens 100K)"),
        (["--data.split.method", "predefined"], "u1"),
        (["--data.split.method", "predefined", "--data.test_path", "x.csv"], "--data.test_path: is one test part"),
        (["--trainer.fast_dev_run", "true"], "--trainer.fast_dev_run: is True, but every fold has its own fit"),
        (["--checkpoint.dirpath", "x"], "--checkpoint.dirpath: is x, but every fold has its own fit and folder"),
        (["--model.dim", "0"], "--model.dim: must be at least 1"),
    ],
)
def test_wrong_options_give_one_line_and_leave_no_files(movielens, tmp_path, args, message, capsys):
    data = ["--data.path", str(movielens("ml-1m"))]
    assert kfold(tmp_path / "runs", *data, *args) == 2
    err = capsys.readouterr().err
    assert message in err.splitlines()[-1]
    assert err.splitlines()[-1].startswith("cflightning: ")
    assert "--model.dim" in args or not (tmp_path / "runs").exists()


def test_a_checkpoint_is_refused(run, movielens, tmp_path, capsys):
    assert kfold(tmp_path, "--data.path", movielens("ml-1m"), "--ckpt_path", run) == 2
    assert re.search(r"--ckpt_path: is .*best.ckpt, but every fold has its own fit", capsys.readouterr().err)


def test_a_word_for_a_number_is_refused(capsys):
    with pytest.raises(SystemExit) as done:
        front_door(["kfold", "--folds", "five"])
    assert done.value.code == 2
    assert "argument --folds: invalid int value: 'five'" in capsys.readouterr().err
