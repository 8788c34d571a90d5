"""The command `tune`, from its options to its files."""

import csv
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from cflightning.__main__ import main as front_door
from cflightning.data import load
from cflightning.utils.locks import lock_folder

pytest.importorskip("optuna", reason="tune needs the extra `tune`")
from cflightning.cli.tune.journal import JournalLock, repair
from cflightning.evaluation.run_metrics import read_metrics

QUICK = ["--trainer.max_epochs", "2", "--trainer.accelerator", "cpu", "--model.dim", "4"]
L2 = ["--model.l2", "{low: 0.001, high: 0.1, log: true}"]


def tune(root, *args):
    return front_door(["tune", "--trainer.default_root_dir", str(root), *QUICK, *map(str, args)])


def report(root, number=0):
    return json.loads((root / f"tune_{number}" / "tune.json").read_text())


def table(root, number=0):
    with (root / f"tune_{number}" / "trials.csv").open() as lines:
        return list(csv.DictReader(lines))


def trial_lines(out):
    return [line for line in out.splitlines() if re.match(r" *\d+  +[\d-]", line)]


@pytest.fixture(scope="module")
def data(movielens):
    return ["--data.path", str(movielens("ml-1m", 40, 30))]


@pytest.fixture
def no_pictures(monkeypatch):
    """Drawing one takes longer than the trials here."""
    monkeypatch.setattr("cflightning.cli.tune.report.draw_search", lambda *args: False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--model.foo", "{low: 1, high: 3}"], "--model.foo: fit refuses 1, of 1 to 3: is not an option"),
        (["--trainer.foo", "{low: 1, high: 3}"], "--trainer.foo: fit refuses 1, of 1 to 3: "),
        (["--model.dim", "{low: 4.0, high: 8.0}"], "--model.dim: fit refuses 4.0, of 4 to 8: must be a whole number"),
        (["--model.svdpp", "{choices: [both, all]}"], "--model.svdpp: fit refuses all, of both | all: must be"),
        ([*L2, "--data.split.seed", "{low: 1, high: 3}"], "--data.split.seed: must be a value, got a range; trials "
                                                          "can only be"),
        (["--data.split.val_fraction", "{low: 0.1, high: 0.3}"], "--data.split.val_fraction: must be a value, got a "
                                                                 "range"),
        (["--config", "{data: {init_args: {split: {folds: {low: 2, high: 3}}}}}"], "--data.split.folds: must be a"),
        (["--trainer.limit_val_batches", "{choices: [1, 2]}"], "--trainer.limit_val_batches: must be a value"),
        (["--config", "{trainer: {callbacks: [{a: {low: 1, high: 2}}]}}"], "--trainer.callbacks: must hold no range"),
        (["--model.dim", "{low: 3, high"], "the command line: must be YAML, got"),
        ([*L2, "--data.split.val_fraction", "0"], "--data.split.val_fraction: must be above 0 for tune, got 0"),
        ([*L2, "--trainer.limit_val_batches", "0"], "--data.split.val_fraction: must be above 0 for tune, got 0"),
        ([*L2, "--trainer.devices", "2"], "--trainer.devices: must be 1 for tune, got 2"),
        ([*L2, "--model.ranking.l2", "{low: 0.1, high: 1.0}"], "--model.ranking.l2: must be a value, got a range;"),
        ([*L2, "--trainer.fast_dev_run", "true"], "--trainer.fast_dev_run: is True, but that measures nothing"),
        ([*L2, "--checkpoint.dirpath", "x"], "--checkpoint.dirpath: is x, but trials keep no checkpoint"),
        ([*L2, "--checkpoint.monitor", "val/mae"], "--checkpoint.monitor: must be val/rmse (min) for tune, got val/"),
        (["--model", "EmbeddingMLPTask"], "tune: needs a range, since EmbeddingMLPTask has no default range"),
        ([*L2, "--data.path", "nowhere.csv"], "nowhere.csv"),
        ([*L2, "--model.dim", "0"], "--model.dim: must be at least 1"),
    ],
)  # fmt: skip
def test_wrong_options_give_one_line_and_leave_no_files(data, tmp_path, args, message, capsys):
    assert tune(tmp_path / "runs", *data, *args) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("cflightning: ")
    assert message in said
    if "--model.dim: must" not in message:  # found by a fit only
        assert not (tmp_path / "runs").exists()


@pytest.fixture(scope="module")
def searched(tmp_path_factory, data):
    """Four trials of synthetic ratings, with ranges in a file and on the command line."""
    root = tmp_path_factory.mktemp("tune")
    config = root / "ranges.yaml"
    config.write_text(
        "model:\n  l2: {low: 0.001, high: 0.1, log: true}\n  learning_rate: {low: 0.01, high: 0.2}\n  margin: 0.2\n"
    )
    args = ["--config", str(config), *data, "--trainer.max_epochs", "{low: 1, high: 3}"]
    assert tune(root, *args, "--trials", 4) == 0
    return root, args


@pytest.mark.slow
def test_the_first_trial_has_the_defaults_and_the_others_are_inside_the_ranges(searched):
    root, _ = searched
    rows = table(root)
    assert [row["trial"] for row in rows] == ["0", "1", "2", "3"]
    assert rows[0]["note"] == "defaults"
    assert (rows[0]["model.l2"], rows[0]["trainer.max_epochs"]) == ("0.02", "2")
    assert float(rows[0]["model.learning_rate"]) == pytest.approx(0.1 * 5**0.5)  # the fused engine's, for two epochs
    assert len({row["model.l2"] for row in rows}) == 4
    for row in rows[1:]:
        assert 0.001 <= float(row["model.l2"]) <= 0.1
        assert 0.01 <= float(row["model.learning_rate"]) <= 0.2
        assert row["trainer.max_epochs"] in ("1", "2", "3")
        assert row["epochs"] == row["trainer.max_epochs"]
    assert report(root)["best"]["val/rmse"] == min(float(row["val_rmse"]) for row in rows)


def test_the_first_trial_has_the_metric_of_fit(searched, data, tmp_path):
    root, _ = searched
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.default_root_dir", str(tmp_path)]
    plain = ["--model.margin", "0.2", "--data.split.val_fraction", "0.1"]
    assert front_door(["fit", *QUICK, *data, *plain, *quiet]) == 0
    alone = read_metrics(tmp_path / "version_0" / "metrics.json")
    assert float(table(root)[0]["val_rmse"]) == alone["val/rmse"]


def test_the_best_configuration_gives_the_same_metric(searched, tmp_path):
    root, _ = searched
    config = root / "tune_0" / "best.yaml"
    text, found = config.read_text(), report(root)
    assert text.startswith("# Best of 4 trials by python -m cflightning tune")
    for word in ("Optimistic", "54 validation rows", f"val/rmse {found['best']['val/rmse']:.4f}"):
        assert word in text
    named = re.search(r"fit --config (\S+)", text)  # from the current folder, where that is shorter
    assert named and Path(named[1]).resolve() == config.resolve()
    settings = yaml.safe_load(text)
    assert settings == found["best"]["settings"]
    assert settings["model"]["init_args"]["margin"] == 0.2
    assert settings["data"]["init_args"]["split"]["val_fraction"] == 0.1
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.default_root_dir", str(tmp_path)]
    assert front_door(["fit", "--config", str(config), *quiet]) == 0
    again = read_metrics(tmp_path / "version_0" / "metrics.json")
    assert again["val/rmse"] == found["best"]["val/rmse"]


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["ials", "bce"])
def test_ranking_objectives_are_searched_by_ndcg(objective, data, tmp_path, capsys):
    pytest.importorskip("numba", reason="the compiled kernel of the sampled loss needs the extra `fast`")
    args = [*data, "--model.objective", objective, "--data.split.method", "per_user", "--trials", 3]
    assert tune(tmp_path, *args) == 0
    out = capsys.readouterr().out
    assert "val nDCG@10" in out
    rows, found = table(tmp_path), report(tmp_path)["best"]
    values = [float(row["val_ndcg@10"]) for row in rows if row["note"] in ("", "defaults")]
    assert found["val/ndcg@10"] == max(values)
    searched = {"ials": {"weight", "l2"}, "bce": {"l2", "negatives", "learning_rate"}}[objective]
    assert {name.removeprefix("model.ranking.") for name in rows[0] if name.startswith("model.")} == searched
    assert all(float(rows[0][f"model.ranking.{name}"]) > 0 for name in searched)  # values of the defaults
    config = tmp_path / "tune_0" / "best.yaml"
    assert "better than the defaults" in config.read_text() or found["trial"] == 0
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.default_root_dir", str(tmp_path)]
    assert front_door(["fit", "--config", str(config), *quiet]) == 0
    again = read_metrics(tmp_path / "version_0" / "metrics.json")
    assert again["val/ndcg@10"] == found["val/ndcg@10"]


@pytest.mark.slow
def test_no_output_or_file_has_a_test_metric(data, tmp_path, monkeypatch, capsys):
    from lightning.pytorch import Trainer

    monkeypatch.setattr(Trainer, "test", lambda *args, **kwargs: 1 / 0)
    assert tune(tmp_path, *data, *L2, "--trials", 2) == 0
    out = capsys.readouterr().out
    assert "486 training rows, 54 validation rows" in out
    assert "test RMSE" not in out
    names = {path.name for path in (tmp_path / "tune_0").rglob("*") if not path.name.endswith(".lock")}
    assert names <= {"tune.json", "best.yaml", "trials.csv", "history.svg", "journal.log"}
    assert [path.name for path in tmp_path.glob("[!.]*")] == ["tune_0"]  # there is no other run
    for name in names - {"history.svg"}:
        assert "test/" not in (tmp_path / "tune_0" / name).read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_a_continued_search_has_the_same_trials(searched, tmp_path, capsys):
    root, args = searched
    rows = table(root)
    assert tune(tmp_path, *args, "--trials", 2) == 0
    assert len(trial_lines(capsys.readouterr().out)) == 2
    assert tune(tmp_path, *args, "--trials", 4, "--trainer.enable_progress_bar", "false") == 0
    out = capsys.readouterr().out
    assert "2 of 4 trials are finished already" in out
    assert [line.split()[0] for line in trial_lines(out)] == ["2", "3"]
    again = table(tmp_path)
    for row in (*rows, *again):
        del row["seconds"]
    assert again == rows
    before = (tmp_path / "tune_0" / "trials.csv").read_text()
    assert tune(tmp_path, *args, "--trials", 4) == 0
    out = capsys.readouterr().out
    assert not trial_lines(out)
    assert "next      python -m cflightning fit --config " in out
    assert (tmp_path / "tune_0" / "trials.csv").read_text() == before
    assert not (tmp_path / "tune_1").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_another_space_other_data_or_another_seed_is_another_search(tmp_path):
    ratings = tmp_path / "ratings.csv"
    rows = [f"{n % 20},{n % 19},{n % 5}\n" for n in range(200)]
    ratings.write_text("user,item,rating\n" + "".join(rows))
    same = ["--data.path", ratings, "--trials", 1]
    for number, args in enumerate(
        [L2, ["--model.l2", "{low: 0.002, high: 0.1, log: true}"], [*L2, "--model.margin", "0.3"], [*L2, "--seed", 1]]
    ):
        assert tune(tmp_path, *same, *args) == 0
        assert report(tmp_path, number)["trials"] == 1
    ratings.write_text("user,item,rating\n" + "".join(rows[:-1]))
    assert tune(tmp_path, *same, *L2) == 0
    assert len({report(tmp_path, number)["fingerprint"] for number in range(5)}) == 5
    (tmp_path / "tune_4" / "tune.json").write_text("[]")  # another's file is left alone
    assert tune(tmp_path, *same, *L2) == 0
    assert (tmp_path / "tune_4" / "tune.json").read_text() == "[]"


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_without_ranges_the_default_space_without_fixed_options_is_searched(data, tmp_path, capsys):
    assert tune(tmp_path, *data, "--trials", 2) == 0
    assert report(tmp_path)["ranges"] == {"model.l2": "0.01 to 0.04 (log)", "model.l2_exponent": "0.4 to 0.8"}
    first = capsys.readouterr().out
    assert "(default --data.split.val_fraction 0.1)" in first
    assert tune(tmp_path, *data, "--trials", 1, "--model.svdpp", "none", "--data.split.val_fraction", "0.2") == 0
    assert report(tmp_path, 1)["ranges"] == {"model.l2": "0.004 to 0.016 (log)", "model.l2_exponent": "0.3 to 0.7"}
    assert report(tmp_path, 1)["rows"] == {"train": 432, "val": 108}
    assert "(default --data.split.val_fraction" not in capsys.readouterr().out


SYNTHETIC = [
    "--data.source", "synthetic", "--data.synthetic", "{num_users: 60, num_items: 40, num_ratings: 1000, noise: 0.1}",
    "--trainer.max_epochs", "8", "--early_stopping.patience", "9",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_trials_worse_than_the_median_are_pruned(tmp_path, capsys):
    rates = ["--model.learning_rate", "{low: 1e-7, high: 0.2, log: true}"]
    assert tune(tmp_path, *SYNTHETIC, *rates, "--trials", 14) == 0
    rows = table(tmp_path)
    pruned = [row for row in rows if row["note"] == "pruned"]
    assert pruned
    assert report(tmp_path)["pruned"] == len(pruned)
    assert all(int(row["trial"]) > 4 and 4 <= int(row["epochs"]) < 8 for row in pruned)
    assert all(row["epochs"] == "8" for row in rows if row not in pruned)
    assert report(tmp_path)["best"]["val/rmse"] < min(float(row["val_rmse"]) for row in pruned)
    assert capsys.readouterr().out.count("pruned") == len(pruned)


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_diverged_and_failed_trials_do_not_end_the_search(data, tmp_path, capsys):
    rates = ["--model.learning_rate", "{choices: [null, 1.0e+30]}", "--model.dim", "{choices: [4, 0]}"]
    assert tune(tmp_path, *data, *rates, "--trials", 12) == 0
    rows = table(tmp_path)
    assert len(rows) == 12
    notes = {(row["model.learning_rate"], row["model.dim"]): row["note"] for row in rows[1:]}
    assert notes["1e+30", "4"].startswith("diverged")
    assert re.match("failed: .*dim: must be at least 1", notes["null", "0"])
    assert report(tmp_path)["best"]["trial"] == 0
    out = capsys.readouterr().out
    assert "the defaults: no other trial was better" in out
    assert "as trial 0" in out  # not fitted again


@pytest.mark.slow
def test_a_search_in_which_all_trials_diverge(data, tmp_path, capsys):
    rates = ["--model.learning_rate", "1.0e+30", *L2]
    assert tune(tmp_path, *data, *rates, "--trials", 2) == 2
    assert "tune: one trial must be complete, but none is" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_ctrl_c_ends_with_the_finished_trials(data, tmp_path, monkeypatch, capsys):
    from cflightning.cli.tune.trial_cli import TrialProgress

    calls, follow = [], TrialProgress.on_train_epoch_end

    def interrupted(self, *args):
        calls.append(1)
        if len(calls) == 4:  # the second epoch of the second trial
            raise KeyboardInterrupt
        follow(self, *args)

    monkeypatch.setattr(TrialProgress, "on_train_epoch_end", interrupted)
    assert tune(tmp_path, *data, *L2, "--trials", 3) == 130
    out = capsys.readouterr().out
    assert "stopped after 1 trials; the same command continues" in out
    assert "best      trial 0" in out
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert tune(tmp_path, *data, *L2, "--trials", 3) == 0
    assert [row["trial"] for row in table(tmp_path)] == ["0", "1", "2"]
    assert not list((tmp_path / "tune_0").glob(".trial-*"))


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_a_trial_stopped_by_sigterm_is_repeated(data, tmp_path, monkeypatch, capsys):
    from cflightning.cli.tune.trial_cli import TrialProgress

    calls, follow = [], TrialProgress.on_train_epoch_end

    def terminated(self, *args):
        calls.append(1)
        if len(calls) == 4:  # the second epoch of the second trial
            os.kill(os.getpid(), signal.SIGTERM)
        follow(self, *args)

    monkeypatch.setattr(TrialProgress, "on_train_epoch_end", terminated)
    assert tune(tmp_path, *data, *L2, "--trials", 3) == 143
    assert "stopped after 1 trials" in capsys.readouterr().out
    assert [row["trial"] for row in table(tmp_path)] == ["0"]
    assert tune(tmp_path, *data, *L2, "--trials", 3) == 0
    assert [(row["trial"], row["note"]) for row in table(tmp_path)][1:] == [("1", ""), ("2", "")]


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_a_damaged_end_of_the_journal_is_cut_off(data, tmp_path, caplog):
    assert tune(tmp_path, *data, *L2, "--trials", 2) == 0
    journal = tmp_path / "tune_0" / "journal.log"
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-5])  # the end of the last trial
    assert tune(tmp_path, *data, *L2, "--trials", 3) == 0
    assert "journal.log: a damaged end is cut off (1 line(s))" in caplog.text
    assert [row["trial"] for row in table(tmp_path)] == ["0", "1", "2"]
    # A process that appends after another one's half line.
    caplog.clear()
    whole = journal.read_bytes()
    lock = JournalLock(journal)
    journal.write_bytes(whole + b'{"op_code":')
    lock.acquire()
    lock.release()
    assert journal.read_bytes() == whole
    # Damage in the middle: what follows cannot be counted on, and is kept beside.
    lines = whole.splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:2], b"\x00\x00\n", *lines[3:]]))
    repair(journal)
    assert journal.read_bytes() == b"".join(lines[:2])
    assert journal.with_suffix(".damaged").read_bytes() == b"".join([b"\x00\x00\n", *lines[3:]])
    assert f"({len(lines) - 2} line(s), kept as journal.damaged)" in caplog.text


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_no_trial_starts_after_the_time_limit(data, tmp_path):
    assert tune(tmp_path, *data, *L2, "--seconds", "0.001") == 0
    assert report(tmp_path)["trials"] == 1


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_the_data_is_read_once(data, tmp_path, monkeypatch):
    seen, load_table = [], load.load_table
    monkeypatch.setattr(load, "load_table", lambda *args, **options: seen.append(1) or load_table(*args, **options))
    assert tune(tmp_path, *data, *L2, "--trials", 3) == 0
    assert len(seen) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_processes_share_a_search(data, tmp_path, capsys):
    assert tune(tmp_path, *data, *L2, "--trials", 6, "--jobs", 2) == 0
    assert sorted(line.split()[0] for line in trial_lines(capsys.readouterr().out)) == list("012345")
    rows = table(tmp_path)
    assert [row["trial"] for row in rows] == list("012345")
    assert len({row["model.l2"] for row in rows}) == 6  # no two draw the same
    assert report(tmp_path)["trials"] == 6


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_a_killed_process_ends_the_search(data, tmp_path, capsys):
    def kill_one():
        while not (children := multiprocessing.active_children()):
            time.sleep(0.1)
        children[0].kill()

    killer = threading.Thread(target=kill_one)
    killer.start()
    assert tune(tmp_path, *data, *L2, "--trials", 4, "--jobs", 2) == 2
    killer.join()
    assert "tune: every process must live until its end, but one was killed" in capsys.readouterr().err.splitlines()[-1]
    assert not multiprocessing.active_children()
    assert tune(tmp_path, *data, *L2, "--trials", 4) == 0


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_one_command_at_a_time_works_on_a_search(data, tmp_path, capsys):
    assert tune(tmp_path, *data, *L2, "--trials", 1) == 0
    with lock_folder(tmp_path / "tune_0"):
        assert tune(tmp_path, *data, *L2, "--trials", 2) == 2
    message = f"tune_0: must be used by one command at a time, but process {os.getpid()} on"
    assert message in capsys.readouterr().err
    assert tune(tmp_path, *data, *L2, "--trials", 2) == 0


@pytest.mark.slow
def test_a_killed_search_leaves_nothing_stuck(data, tmp_path):
    args = [*data, *L2, "--trials", "40", "--jobs", "2", "--trainer.default_root_dir", str(tmp_path), *QUICK]
    process = subprocess.Popen([sys.executable, "-m", "cflightning", "tune", *args], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 100
    while (
        time.monotonic() < deadline
        and not (len(table(tmp_path)) if (tmp_path / "tune_0" / "trials.csv").exists() else 0) > 5
    ):
        time.sleep(0.05)
    process.kill()
    process.wait()
    journal = tmp_path / "tune_0" / "journal.log"
    before = -1
    while time.monotonic() < deadline and journal.stat().st_size != before:  # its processes notice, and end
        before = journal.stat().st_size
        time.sleep(3)
    done = len(table(tmp_path))
    assert 5 < done < 40
    assert tune(tmp_path, *data, *L2, "--trials", 42, "--seed", 0) == 0
    assert [int(row["trial"]) for row in table(tmp_path)] == [*range(42)]
    from cflightning.cli.tune.trials import Trials

    states = {trial.state.name for trial in Trials(tmp_path / "tune_0", {}, 0).study.get_trials()}
    assert "RUNNING" not in states
