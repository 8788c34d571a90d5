"""Compilation: read-only folders, damaged and full caches, a missing home directory, numba with compiling disabled."""

import errno
import importlib.util
import os
import subprocess
import sys

import pytest

from cflightning.kernels import compiling

numba = pytest.importorskip("numba", reason="compiled kernels need the extra `fast`")
SOURCE = """
from cflightning.kernels.compiling import compiled

@compiled(nogil=True)
def inner(x):
    return 2 * x

@compiled(nogil=True)
def double_and_one(x):
    return inner(x) + 1
"""


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Clear the memoised cache folder before and after each test."""
    compiling.find_cache_folder.cache_clear()
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    yield
    compiling.find_cache_folder.cache_clear()


@pytest.fixture
def double_and_one(tmp_path):
    """Import a module of two kernels again, as another process would, and run one."""
    path = tmp_path / "doubling.py"
    path.write_text(SOURCE)

    def run():
        spec = importlib.util.spec_from_file_location("doubling", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert module.double_and_one(20) == 41
        return module.double_and_one

    return run


@pytest.mark.parametrize("content", [b"", b"\x80\x04", b"no pickle at all"])
@pytest.mark.parametrize("kind", ["nbi", "nbc"])
def test_damaged_cache_files_are_compiled_again(tmp_path, monkeypatch, double_and_one, kind, content):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    double_and_one()
    files = [*(tmp_path / "cache").rglob(f"*.{kind}")]
    assert len(files) == 2
    for file in files:
        file.write_bytes(content)
    double_and_one()
    assert not sum(double_and_one().stats.cache_misses.values()), "damaged files are not replaced"


def test_a_full_disk_disables_only_the_cache(tmp_path, monkeypatch, double_and_one, caplog):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("numba.core.caching.IndexDataCacheFile.save", full)
    double_and_one()
    assert "No space left on device" in caplog.text


def test_without_a_writable_folder_each_run_compiles(tmp_path, monkeypatch, double_and_one, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "file"))
    double_and_one()
    assert "compiled code cannot be cached" in caplog.text
    assert not [*tmp_path.rglob("*.nbi")]


@pytest.mark.parametrize("home", ["", "~", "relative", "/nonexistent"])
def test_without_a_home_directory_no_folder_is_created(tmp_path, monkeypatch, home):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", home)
    monkeypatch.delenv("CFLIGHTNING_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert compiling.user_cache_folder() is None
    assert not [*tmp_path.iterdir()]


def test_a_read_only_installation_caches_in_the_user_folder(tmp_path, monkeypatch):
    (tmp_path / "install").mkdir()
    (tmp_path / "install" / "__pycache__").touch()  # no folder can be made there
    monkeypatch.setenv("CFLIGHTNING_CACHE", str(tmp_path / "cache"))
    assert compiling.find_cache_folder(tmp_path / "install") == str(tmp_path / "cache" / "numba")


@pytest.mark.slow
def test_autograd_trains_and_logs_why_when_compiling_is_disabled(tmp_path):
    code = (
        "import logging; from lightning.pytorch import Trainer; from cflightning import *;"
        "logging.basicConfig(level='INFO');"
        "data = RatingsDataModule(source='synthetic', synthetic=dict(num_users=60, num_items=40, num_ratings=1111));"
        "trainer = lambda: Trainer(accelerator='cpu', max_epochs=1, logger=False, enable_checkpointing=False,"
        " enable_progress_bar=False, enable_model_summary=False);"
        "[trainer().fit(EmbeddingDotTask(dim=4, objective=o), data) for o in ('multitask', 'ials', 'softmax')]"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "NUMBA_DISABLE_JIT": "1"}, capture_output=True, text=True,
        timeout=200, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "compiling by numba is disabled (NUMBA_DISABLE_JIT)" in done.stderr
    assert "training by autograd" in done.stderr
