"""Run folders: one for each run, whatever the environment variables, and one process in each."""

import os
import shutil
import subprocess
import sys
from contextlib import ExitStack

import pytest
from lightning_utilities.core.rank_zero import rank_zero_only

from cflightning.__main__ import main as front_door
from cflightning.cli.run_folders import claim_run, single_task
from cflightning.cli.training.cli import TrainingCLI
from cflightning.errors import ConfigError
from cflightning.utils.files import atomic_write
from cflightning.utils.locks import lock_folder

QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu", "--trainer.max_epochs", "1",
         "--model.objective", "mse", "--model.dim", "4", "--data.split.val_fraction", "0.05"]  # fmt: skip
TASKS = {"RANK": "3", "LOCAL_RANK": "3", "SLURM_PROCID": "3", "SLURM_LOCALID": "3", "SLURM_NODEID": "0",
         "SLURM_NTASKS": "4", "SLURM_NNODES": "1", "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "seeds"}  # fmt: skip


def test_a_run_of_one_process_has_rank_zero_in_any_environment(movielens, tmp_path, monkeypatch):
    fit = ["fit", "--data.path", str(movielens("ml-1m")), "--trainer.default_root_dir", str(tmp_path), *QUIET]
    TrainingCLI(fit)
    before = {path: path.read_bytes() for path in (tmp_path / "version_0").rglob("*") if path.is_file()}
    monkeypatch.setattr(rank_zero_only, "rank", 2)  # as after an import of Lightning with RANK=2
    cli = TrainingCLI([*fit, "--model.seed", "1"])
    assert cli.trainer.log_dir == str(tmp_path / "version_1")
    assert {path.name for path in (tmp_path / "version_1").iterdir()} >= {"metrics.json", "config.yaml", "metrics.csv"}
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.slow
def test_tasks_of_one_srun_get_folders_of_their_own(movielens, tmp_path):
    fit = [sys.executable, "-m", "cflightning", "fit", "--data.path", str(movielens("ml-1m")), *QUIET,
           "--trainer.default_root_dir", str(tmp_path), "--trainer.devices", "1"]  # fmt: skip
    environments = [os.environ | TASKS | {"SLURM_PROCID": f"{i}", "RANK": f"{i}", "LOCAL_RANK": f"{i}"} for i in (0, 3)]
    tasks = [
        subprocess.Popen(fit, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for environment in environments
    ]
    said = [task.communicate(timeout=300)[0] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], said
    assert sorted(path.parent.name for path in tmp_path.glob("*/metrics.json")) == ["version_0", "version_1"]


@pytest.mark.parametrize(
    ("changed", "single"),
    [({}, True), ({"devices": "auto"}, False), ({"devices": 2}, False), ({"num_nodes": 2}, False),
     ({"strategy": "ddp"}, False)],
)  # fmt: skip
def test_only_a_run_on_one_device_is_a_single_task(monkeypatch, changed, single):
    monkeypatch.setenv("SLURM_NTASKS", "4")
    assert single_task({"devices": 1, "num_nodes": 1, "strategy": "auto", **changed}) == single
    monkeypatch.delenv("SLURM_NTASKS")
    assert not single_task({"devices": 1, "num_nodes": 1, "strategy": "auto", **changed})


@pytest.mark.slow
@pytest.mark.parametrize("command", ["fit", "kfold"])
def test_one_command_at_a_time_works_on_a_run(movielens, tmp_path, command, capsys):
    args = [command, "--data.path", str(movielens("ml-1m")), "--trainer.default_root_dir", str(tmp_path), *QUIET]
    if command == "kfold":
        args += ["--folds", "2"]
    assert front_door(args) == 0
    [folder] = [path for path in tmp_path.iterdir() if path.is_dir()]
    if command == "fit":
        args += ["--ckpt_path", "last", "--trainer.max_epochs", "2"]
    capsys.readouterr()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}
    with lock_folder(folder):
        assert front_door(args) == 2
    assert f"must be used by one command at a time, but process {os.getpid()} on" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in before} == before
    assert front_door(args) == 0


def test_the_next_run_deletes_files_of_killed_ones(tmp_path):
    places = [tmp_path, tmp_path / "version_0" / "checkpoints", tmp_path / "kfold_0" / "fold_1_seed_0" / "checkpoints",
              tmp_path / "tune_0"]  # fmt: skip
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
        (place / ".best.ckpt-01234567.scrap").write_bytes(b"half")
        (place / "best.ckpt").write_bytes(b"whole")
    trials = [tmp_path / f"tune_{i}" / ".trial-abc" for i in (0, 1)]
    for trial in trials:
        trial.mkdir(parents=True)
        (trial / "x").write_bytes(b"half")
    with (
        atomic_write(tmp_path / "version_0" / "held", "wb") as out,
        lock_folder(tmp_path / "tune_1"),
        ExitStack() as held,
    ):
        out.write(b"in work")
        run = claim_run(tmp_path, None, held)
        assert run == tmp_path / "version_1"
        assert [path.parent.name for path in tmp_path.rglob("*.scrap")] == ["version_0"]  # a process holds it
        assert [trial.is_dir() for trial in trials] == [False, True]
    assert (tmp_path / "version_0" / "held").read_bytes() == b"in work"
    assert all((place / "best.ckpt").read_bytes() == b"whole" for place in places)


def test_other_processes_of_a_run_neither_make_nor_lock_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    with ExitStack() as held:
        assert claim_run(tmp_path, None, held) == tmp_path / "version_0"
    assert not [*tmp_path.iterdir()]


def test_a_wrong_option_of_the_trainer_is_reported_in_one_line(movielens, tmp_path, capsys):
    args = ["fit", "--data.path", str(movielens("ml-1m")), "--trainer.default_root_dir", str(tmp_path), *QUIET]
    assert front_door([*args, "--trainer.accelerator", "gpuu"]) == 2
    err = capsys.readouterr().err
    assert "--trainer: You selected an invalid accelerator name" in err
    assert not [*tmp_path.iterdir()]


def test_two_runs_do_not_start_in_one_folder(tmp_path):
    with ExitStack() as held:
        run = claim_run(tmp_path, None, held)
        with pytest.raises(ConfigError, match="one command at a time"), ExitStack() as other:
            claim_run(tmp_path, run, other)


@pytest.mark.parametrize("name", ["config.yaml", "hparams.yaml", ".lock", "checkpoints", "checkpoints/last.ckpt"])
def test_links_in_an_untrusted_run_do_not_redirect_files(run, tmp_path, name, capsys):
    given = tmp_path / "given"
    shutil.copytree(run, given)
    before = tmp_path / "mine"
    (shutil.copytree if (given / name).is_dir() else shutil.copy)(
        run / (name if name != ".lock" else "config.yaml"), before
    )
    kept = {path: path.read_bytes() for path in [before, *before.rglob("*")] if path.is_file()}
    shutil.rmtree(given / name) if (given / name).is_dir() else (given / name).unlink(missing_ok=True)
    (given / name).symlink_to(before)
    assert front_door(["fit", "--ckpt_path", str(given), *QUIET[:4], "--trainer.max_epochs", "4"]) == 2
    assert f"but {name} is a link that leads out of it" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in kept} == kept
    assert len([*before.rglob("*")]) == len([path for path in kept if path != before])


def test_a_link_inside_a_run_is_accepted(run, tmp_path):
    given = tmp_path / "given"
    shutil.copytree(run, given)
    (given / "checkpoints" / "newest.ckpt").symlink_to("last.ckpt")
    with ExitStack() as held:
        assert claim_run(tmp_path, given, held) == given
