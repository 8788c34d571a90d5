"""A lack of space, permission or memory is reported in one line, and existing files are kept."""

import errno
import resource
from contextlib import contextmanager

import pytest

from cflightning.__main__ import main as front_door
from cflightning.cli.failures import resource_error
from cflightning.cli.training.report import RunReport
from cflightning.errors import ConfigError, ResourceError, StorageError

QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu", "--model.objective", "mse",
         "--data.split.val_fraction", "0.05"]  # fmt: skip


@contextmanager
def files_of_at_most(size):
    """No file may grow beyond `size` bytes; the system then answers as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def last_line(capsys):
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return err.strip().splitlines()[-1]


@pytest.fixture
def fit(movielens, tmp_path):
    return ["fit", "--data.path", str(movielens("ml-1m", 60, 40)), "--trainer.default_root_dir", str(tmp_path), *QUIET,
            "--model.engine", "autograd", "--model.svdpp", "none", "--trainer.max_epochs", "3"]  # fmt: skip


@pytest.mark.slow
def test_a_fit_on_a_full_disk_keeps_its_checkpoints(fit, tmp_path, monkeypatch, capsys):
    follow, limits = RunReport.on_train_epoch_start, []

    def fill(self, trainer, module):
        follow(self, trainer, module)
        if trainer.current_epoch == 2:
            limits.append(files_of_at_most(60_000))
            limits[0].__enter__()

    monkeypatch.setattr(RunReport, "on_train_epoch_start", fill)
    try:
        status = front_door([*fit, "--model.dim", "256"])
    finally:
        limits[0].__exit__(None, None, None)
    checkpoints = tmp_path / "version_0" / "checkpoints"
    assert status == 2
    line = last_line(capsys)
    assert "ckpt: cannot be written: File too large (more than 0." in line
    assert "the old file is kept; free some space, or write elsewhere: --trainer.default_root_dir" in line
    assert line.endswith("checkpoints/last.ckpt is kept")
    assert sorted(path.name for path in checkpoints.iterdir()) == ["best.ckpt", "last.ckpt"]
    monkeypatch.undo()
    assert front_door([*fit, "--ckpt_path", str(checkpoints / "last.ckpt")]) == 0


def test_predictions_on_a_full_disk_are_reported_in_one_line(run, tmp_path, capsys):
    (tmp_path / "pairs.csv").write_text("user,item\n" + "".join(f"{i % 60},{i % 40}\n" for i in range(10_000)))
    with files_of_at_most(50_000):
        status = front_door(["predict", "--ckpt_path", str(run), "--data.path", str(tmp_path / "pairs.csv"),
                             "--trainer.default_root_dir", str(tmp_path), *QUIET[:4]])  # fmt: skip
    assert status == 2
    assert "predictions.csv: cannot be written: File too large" in last_line(capsys)
    assert not (tmp_path / "predictions.csv").exists()


@pytest.mark.parametrize("command", [["fit"], ["kfold", "--folds", "2"], ["tune", "--trials", "1"], ["predict"]])
def test_an_unwritable_folder_is_reported_in_one_line(fit, run, tmp_path, command, capsys):
    (tmp_path / "file").write_text("")
    args = [*fit[1:3], "--trainer.default_root_dir", str(tmp_path / "file" / "runs"), *QUIET[:4]]
    if command == ["predict"]:
        args += ["--ckpt_path", str(run)]
    assert front_door([*command, *args]) == 2
    line = last_line(capsys)
    assert line.startswith(f"cflightning: {tmp_path}/file/runs")
    assert "cannot be written: Not a directory" in line


def test_a_model_beyond_memory_is_reported_in_one_line(fit, tmp_path, capsys):
    assert front_door([*fit, "--model.dim", "20000000000"]) == 2
    line = last_line(capsys)
    assert "memory: " in line
    assert "GB exceeds the free memory" in line
    assert "lower --model.dim" in line


def test_errors_are_classified():
    full = OSError(errno.ENOSPC, "No space left on device", "a/b")
    assert isinstance(resource_error(full), StorageError)
    of_torch = RuntimeError("unexpected pos 3015616 vs 3015540")
    of_torch.__context__ = full
    assert str(resource_error(of_torch)).startswith("a/b: cannot be written: No space left on device")
    numpy = MemoryError("Unable to allocate 3.20 GiB for an array with shape (20, 20)")
    assert str(resource_error(numpy)).startswith("memory: an allocation of 3.20 GiB exceeds the free memory")
    assert isinstance(resource_error(MemoryError()), ResourceError)
    for other in (ConfigError("x"), ValueError("x"), RuntimeError("x"), OSError(errno.ECONNRESET, "x")):
        assert resource_error(other) is None
