"""Signals end a command with the exit status of shells and advice on how to continue."""

import os
import signal
from pathlib import Path

import pytest

from cflightning.__main__ import main as front_door
from cflightning.cli.stopping import Stopped, stop_status, stoppable
from cflightning.cli.training.report import RunReport
from cflightning.evaluation.baselines import RankingBaselines
from cflightning.evaluation.run_metrics import read_metrics

QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu", "--data.split.val_fraction", "0.05"]


@pytest.fixture
def at_epoch(monkeypatch):
    """Sends a signal to this process at the end of an epoch of any fit."""

    def arrange(number: signal.Signals, epoch: int) -> None:
        follow = RunReport.on_train_epoch_end

        def send(self, trainer, module):
            follow(self, trainer, module)
            if trainer.current_epoch == epoch:
                os.kill(os.getpid(), number)

        monkeypatch.setattr(RunReport, "on_train_epoch_end", send)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells have background jobs ignore it
    yield arrange
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Lightning ignores it from then on


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_fit_prints_how_to_continue_and_continues(
    movielens, tmp_path, at_epoch, monkeypatch, number, status, capsys
):
    monkeypatch.chdir(tmp_path)
    fit = ["fit", "--data.path", str(movielens("ml-1m", 60, 40)), "--model.objective", "mse", *QUIET]
    at_epoch(number, 2)
    assert front_door([*fit, "--trainer.max_epochs", "4"]) == status
    last = Path("runs") / "version_0" / "checkpoints" / "last.ckpt"
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"stopped; continue with: python -m cflightning fit --ckpt_path {last}"
    )
    assert not (tmp_path / "runs" / "version_0" / "metrics.json").exists()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert front_door(["fit", "--ckpt_path", str(last), *QUIET]) == 0
    assert read_metrics(last.parent.parent / "metrics.json")["epochs"] == 4
    assert len([*tmp_path.rglob("metrics.json")]) == 1


def test_a_fit_stopped_before_its_first_checkpoint_starts_again(movielens, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        RankingBaselines, "on_fit_start", lambda *_: os.kill(os.getpid(), signal.SIGTERM), raising=False
    )
    fit = ["fit", "--data.path", str(movielens("ml-1m")), "--trainer.default_root_dir", str(tmp_path), *QUIET]
    assert front_door(fit) == 143
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .startswith("stopped before the first checkpoint was written; start again")
    )


@pytest.mark.slow
def test_a_stopped_kfold_keeps_finished_runs(movielens, tmp_path, monkeypatch, capsys):
    from cflightning.evaluation.ratings import RatingEvaluation

    write = RatingEvaluation.write

    def stop(self, folder):
        if "fold_2" in folder.name:
            os.kill(os.getpid(), signal.SIGTERM)
        return write(self, folder)

    kfold = ["kfold", "--data.path", str(movielens("ml-1m")), "--folds", "2", "--trainer.default_root_dir",
             str(tmp_path), "--trainer.max_epochs", "2", "--model.dim", "4", *QUIET]  # fmt: skip
    monkeypatch.setattr(RatingEvaluation, "write", stop)
    assert front_door(kfold) == 143
    assert "stopped; the same command continues" in capsys.readouterr().err
    monkeypatch.undo()
    assert front_door(kfold) == 0
    assert "kept" in capsys.readouterr().out


def test_exit_statuses():
    assert stop_status(KeyboardInterrupt()) == 130
    assert stop_status(Stopped(143)) == 143
    assert stop_status(SystemExit(1)) is None
    assert stop_status(ValueError()) is None
    of_lightning = SystemExit(1)
    of_lightning.__context__ = Stopped(143)
    assert stop_status(of_lightning) == 143


def test_the_handler_of_another_program_is_kept():
    mine = lambda *_: None  # noqa: E731
    signal.signal(signal.SIGTERM, mine)
    try:
        with stoppable():
            assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
