"""A target is the old or the new folder at any moment, and no scratch folder is left behind."""

import errno
import os
import resource
import signal
import subprocess
import sys

import pytest

from cflightning.errors import ExportError
from cflightning_export.publish import (
    atomic_folder,
    check_target,
    exchange,
    export_errors,
    recover,
    require_space,
    scratch_folder,
)

# Kills itself at one of the moments before and after each step that moves a folder.
KILLED = """
import os, signal, sys
from pathlib import Path
from cflightning_export import publish

moments = 0

def moment():
    global moments
    if moments == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    moments += 1

def watched(step):
    def run(*paths):
        moment()
        done = step(*paths)
        moment()
        return done
    return run

exchange = publish.exchange if sys.argv[3] == "exchanged" else lambda one, other: False
with publish.atomic_folder(
    Path(sys.argv[1]), overwrite=True, exchange=watched(exchange), rename=watched(os.rename)
) as folder:
    (folder / "manifest.json").write_text('{"format": "cflightning-bundle", "version": "new"}')
    (folder / "more").write_text("new")
    moment()
"""


def write(folder, version):
    (folder / "manifest.json").write_text(f'{{"format": "cflightning-bundle", "version": "{version}"}}')
    (folder / "more").write_text(version)


def version(folder):
    """Return the file names of a complete folder."""
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "more"]
    kept = (folder / "more").read_text()
    assert f'"version": "{kept}"' in (folder / "manifest.json").read_text()
    return kept


def supported(folder):
    (folder / "a").mkdir()
    (folder / "b").mkdir()
    found = exchange(folder / "a", folder / "b")
    (folder / "a").rmdir()
    (folder / "b").rmdir()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("there", ["old", None])
@pytest.mark.parametrize("how", ["exchanged", "renamed"])
def test_the_old_or_the_new_folder_is_there_whenever_the_process_is_killed(tmp_path, how, there):
    if how == "exchanged" and not supported(tmp_path):
        pytest.skip("this file system cannot exchange folders")
    target, found = tmp_path / "bundle", []
    for moment in range(10):
        if there:
            with atomic_folder(target, overwrite=True) as folder:
                write(folder, "old")
        done = subprocess.run([sys.executable, "-c", KILLED, str(target), str(moment), how], check=False)
        if how == "renamed":
            recover(target)
        found.append(version(target) if target.exists() else None)
        assert not (there and found[-1] is None)
        with atomic_folder(target, overwrite=True) as folder:
            write(folder, "next")
        assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
        if there is None:
            (target / "more").unlink()
            (target / "manifest.json").unlink()
            target.rmdir()
    assert done.returncode == 0
    assert set(found) == {there, "new"}
    assert sorted(found, key=lambda one: one == "new") == found  # once new, new at every later moment


def test_of_two_exports_at_once_the_first_one_stays_and_the_other_fails(tmp_path):
    target = tmp_path / "bundle"

    def two_at_once():
        with atomic_folder(target) as late:
            write(late, "late")
            with atomic_folder(target) as first:
                write(first, "first")
            assert late.exists()  # in use, so not removed

    with pytest.raises(ExportError, match="another export has made it"):
        two_at_once()
    assert version(target) == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_folder_made_meanwhile_that_is_no_bundle_is_not_replaced(tmp_path):
    target = tmp_path / "bundle"

    def taken():
        with atomic_folder(target, overwrite=True) as folder:
            write(folder, "new")
            target.mkdir()
            (target / "thesis.txt").write_text("years of work")

    with pytest.raises(ExportError, match="is not a bundle"):
        taken()
    assert (target / "thesis.txt").read_text() == "years of work"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_folders_of_other_names_are_never_removed(tmp_path):
    names = [".bundle-old", ".bundle-0123456789abcdef.bak", ".bundle2-0123456789abcdef", "bundle-0123456789abcdef"]
    for name in names:
        (tmp_path / name).mkdir()
    (tmp_path / ".bundle-0123456789abcdef").mkdir()
    with atomic_folder(tmp_path / "bundle") as folder:
        write(folder, "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names, "bundle"])


def test_permissions_are_those_of_the_umask(tmp_path):
    before = os.umask(0o077)
    try:
        with atomic_folder(tmp_path / "bundle") as folder:
            write(folder, "new")
    finally:
        os.umask(before)
    assert (tmp_path / "bundle").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "bundle" / "more").stat().st_mode & 0o777 == 0o600


def test_a_full_disk_is_an_error_of_one_line_and_the_old_folder_stays(tmp_path):
    target = tmp_path / "bundle"
    with atomic_folder(target) as folder:
        write(folder, "old")

    def replace():
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        try:
            with atomic_folder(target, overwrite=True) as folder:
                resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # as a full disk, for this process alone
                (folder / "more").write_bytes(b"0" * 1000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    with pytest.raises(
        ExportError, match=r"cannot be written: .*MB are free\); the existing folder is unchanged"
    ) as raised:
        replace()
    assert "\n" not in str(raised.value)
    assert version(target) == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_too_little_space_is_an_error_before_anything_is_written(tmp_path):
    says = r"needs 1,\d{3},\d{3}.* MB \(.* MB are free\); nothing is left behind"
    with pytest.raises(ExportError, match=says), export_errors(tmp_path / "bundle"):
        require_space(tmp_path, 2**60)


@pytest.mark.parametrize("make", [atomic_folder, scratch_folder])
def test_a_folder_that_cannot_be_made_is_an_error(tmp_path, make):
    (tmp_path / "file").write_text("")
    target = tmp_path / "file" / "bundle"
    says = "cannot be written: .*nothing is left behind"
    with pytest.raises(ExportError, match=says), export_errors(target), make(target):
        pytest.fail("must not come so far")


def test_errors_of_an_exchange_are_raised(tmp_path):
    with pytest.raises(OSError, match=os.strerror(errno.ENOENT)):
        exchange(tmp_path / "none", tmp_path / "neither")


def test_a_renamed_old_folder_is_brought_back(tmp_path):
    target = tmp_path / "bundle"
    left = tmp_path / ".bundle-0123456789abcdef.old"
    left.mkdir()
    write(left, "old")
    with pytest.raises(ExportError, match="--overwrite"):
        check_target(target, overwrite=False)
    assert version(target) == "old"
