"""Files are replaced in one step."""

import errno
import fcntl
import os
import stat
import subprocess
import sys

import pytest

from cflightning.errors import StorageError
from cflightning.utils.files import atomic_write, make_folder, make_numbered_folder, sweep


@pytest.fixture
def umask():
    """Sets the umask, and puts it back."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize(("mask", "private", "allowed"), [(0o022, False, 0o644), (0o077, False, 0o600),
                                                           (0o002, False, 0o664), (0o000, True, 0o600)])  # fmt: skip
@pytest.mark.parametrize(("mode", "content"), [("w", "é\n"), ("wb", b"\x00\xff")])
def test_the_file_is_replaced_at_the_end_with_the_permissions_of_the_umask(
    tmp_path, umask, mode, content, mask, private, allowed
):
    umask(mask)
    path = tmp_path / "file"
    path.write_text("old")
    with atomic_write(path, mode, private=private) as out:
        out.write(content)
        assert path.read_text() == "old"
    assert path.read_bytes() == (content if mode == "wb" else content.encode("utf-8"))
    assert stat.S_IMODE(path.stat().st_mode) == allowed
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_failure_keeps_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(TypeError), atomic_write(path, "wb") as out:
        out.writelines([b"half", "no bytes"])
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_content_is_on_the_disk_before_the_name(tmp_path, monkeypatch):
    done = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: done.append(os.fstat(handle).st_size) or sync(handle))
    monkeypatch.setattr(os, "replace", lambda *args: done.append("named") or replace(*args))
    with atomic_write(tmp_path / "file", "wb") as out:
        out.write(b"12345")
    assert done[:2] == [5, "named"]
    assert len(done) == 3  # the folder


FULL = """
import resource, sys
from pathlib import Path
from cflightning.utils.files import atomic_write
import torch
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
with atomic_write(Path(sys.argv[1]), "wb") as out:
    {}
"""


@pytest.mark.slow
@pytest.mark.parametrize("write", ["out.write(bytes(300_000))", "torch.save(torch.zeros(100_000), out)"])
def test_a_full_disk_is_one_error_and_the_old_file_is_kept(tmp_path, write):
    path = tmp_path / "file"
    path.write_text("old")
    done = subprocess.run(
        [sys.executable, "-c", FULL.format(write), str(path)], capture_output=True, text=True, timeout=100
    )
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(
        f"cflightning.errors.StorageError: {path}: cannot be written: File too large (more than 0.1 MB"
    )
    assert last.endswith("the old file is kept")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_other_errors_are_not_changed(tmp_path):
    with pytest.raises(ConnectionResetError), atomic_write(tmp_path / "file"):
        raise ConnectionResetError(errno.ECONNRESET, "connection")


def test_folders_that_cannot_be_made_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    for make in (
        lambda: make_numbered_folder(tmp_path / "file", "version"),
        lambda: make_folder(tmp_path / "file" / "x"),
    ):
        with pytest.raises(StorageError, match=r"file.*: cannot be written: Not a directory"):
            make()


def test_scraps_of_killed_processes_are_deleted(tmp_path):
    with atomic_write(tmp_path / "held") as out:
        out.write("x")
        (tmp_path / ".left-0a.scrap").write_text("y")
        sweep([tmp_path, tmp_path / "missing"])
        assert [path.name[:6] for path in tmp_path.iterdir()] == [".held-"]
    assert (tmp_path / "held").read_text() == "x"


def test_without_locks_old_scraps_are_deleted(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    new, old = tmp_path / ".a-0.scrap", tmp_path / ".b-1.scrap"
    new.write_text("")
    old.write_text("")
    os.utime(old, (1e9, 1e9))
    sweep([tmp_path])
    assert [*tmp_path.iterdir()] == [new]
    with atomic_write(tmp_path / "file") as out:
        out.write("x")
    assert (tmp_path / "file").read_text() == "x"
