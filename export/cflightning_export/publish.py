"""Atomic publication of folders: made in a scratch folder beside the target, then moved into its place."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cflightning.errors import CFLightningError, ExportError
from cflightning_serve.bundle.manifest import FORMAT, MANIFEST

try:
    import fcntl
except ImportError:  # Windows: no folder is known to be unused there, and none is removed
    fcntl = None  # type: ignore[assignment]

LAYOUT_FORMAT, LAYOUT_FILE = "cflightning-layout", "layout.json"
_MARKERS = {MANIFEST: FORMAT, LAYOUT_FILE: LAYOUT_FORMAT}
"""File in a folder that an export has written -> its `format`."""
OLD = ".old"
"""Suffix of a folder that had to leave its place before the new one was there."""
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
"""Errors of renaming a folder to a path that exists."""
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
"""Arguments of renameat2: paths relative to the current folder, and the flag that exchanges them."""


def check_target(target: Path, overwrite: bool) -> None:
    """Check that an export may write a folder, after recovering what a killed export has left.

    Args:
        target: the folder to make, absolute.
        overwrite: whether the output of an earlier export is replaced; any other folder is never touched, unless it is
            empty.

    Raises:
        ExportError: the target exists and must stay.
    """
    recover(target)
    if target.is_symlink():
        raise ExportError(f"{target}: is a link; name the folder itself")
    if not target.exists():
        return
    if target == Path.cwd():
        raise ExportError(f"{target}: is the current folder; name one to be made in it")
    if target.is_dir() and not any(target.iterdir()):
        return
    if not any(_format(target / name) == ours for name, ours in _MARKERS.items()):
        raise ExportError(f"{target}: exists and is not a bundle; choose another folder")
    if not overwrite:
        raise ExportError(f"{target}: exists; choose another folder, or replace it with --overwrite")


def exchange(first: Path, second: Path) -> bool:
    """Exchange two folders in one step; False where the system or the file system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0:
        return True
    if ctypes.get_errno() in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM):
        return False
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(second))


@contextmanager
def atomic_folder(
    target: Path,
    *,
    overwrite: bool = False,
    exchange: Callable[[Path, Path], bool] = exchange,
    rename: Callable[[Path, Path], None] = os.rename,
) -> Iterator[Path]:
    """Yield a scratch folder that becomes the target when the block ends, and is removed when the block fails.

    The old or the new folder is there at any moment, also after a power loss. Where two folders cannot be exchanged,
    the old one is renamed first; if the process ends before the new one is there, the old one is brought back
    (`recover`) or read under its new name (`cflightning_serve`).

    Args:
        target: the folder to make, absolute and checked.
        overwrite: whether a folder that exists by then is replaced.
        exchange: exchanges two folders, or returns False.
        rename: renames a folder.

    Raises:
        ExportError: the folder cannot be written, or another process has made the target in the meantime.
    """
    with export_errors(target), scratch_folder(target) as scratch:
        yield scratch
        for path in [*scratch.rglob("*"), scratch]:
            _sync(path)
        if overwrite:
            check_target(target, overwrite)  # again: something else may exist there by now
            _replace(scratch, target, exchange, rename)
        else:
            _move(scratch, target, rename)
        _sync(target.parent)


@contextmanager
def export_errors(target: Path) -> Iterator[None]:
    """Turn errors of the file system into `ExportError`, which states whether the old folder is still there."""
    try:
        yield
    except CFLightningError:  # some are OSErrors as well
        raise
    except OSError as error:
        remains = "the existing folder is unchanged" if target.exists() else "nothing is left behind"
        free = ""
        if error.errno in _DISK_FULL:
            existing = next(parent for parent in target.parents if parent.exists())
            free = f" ({shutil.disk_usage(existing).free / 1e6:,.1f} MB are free)"
        raise ExportError(f"{target}: cannot be written: {error.strerror}{free}; {remains}") from error


def require_space(folder: Path, needed: int) -> None:
    """Raise OSError unless so many bytes are free on the disk of a folder."""
    if needed > shutil.disk_usage(folder).free:
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: needs {needed / 1e6:,.1f} MB")


@contextmanager
def scratch_folder(target: Path) -> Iterator[Path]:
    """Yield a new folder beside `target` that only this process uses; remove it at the end if it is still there.

    A lock on the folder marks it as used; the system releases the lock when the process ends, in whatever way.

    Args:
        target: the folder that is made in it, absolute; its parents are made.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target)
    while True:
        folder = target.with_name(f".{target.name}-{secrets.token_hex(8)}")
        folder.mkdir()  # with the permissions of the umask
        lock = _lock(folder)
        if lock is not None and folder.exists():
            break
        if lock is not None:  # another process removed it as a leftover in the moment before it was locked
            os.close(lock)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def remove_leftovers(target: Path) -> None:
    """Remove scratch folders of earlier processes beside `target`, unless they are still used.

    A renamed old folder stays as long as the target does not exist.
    """
    for folder in _scratch_folders(target):
        if (folder.suffix != OLD or target.exists()) and (lock := _lock(folder, must_lock=True)) is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def recover(target: Path) -> None:
    """Bring back a renamed old folder if its process ended before the new one was there."""
    if not target.exists() and not target.is_symlink() and target.parent.is_dir():
        renamed = [folder for folder in _scratch_folders(target) if folder.suffix == OLD]
        if renamed:
            max(renamed, key=lambda folder: folder.stat().st_mtime_ns).rename(target)


def _scratch_folders(target: Path) -> list[Path]:
    name = re.compile(rf"\.{re.escape(target.name)}-[0-9a-f]{{16}}({re.escape(OLD)})?")
    try:
        return [path for path in target.parent.iterdir() if name.fullmatch(path.name) and path.is_dir()]
    except OSError:  # a folder that can be written to but not listed
        return []


def _lock(folder: Path, *, must_lock: bool = False) -> int | None:
    """Lock a folder.

    Args:
        folder: the folder.
        must_lock: whether a folder that cannot be locked, as on some network file systems, counts as locked by another.

    Returns:
        A file descriptor, to be closed; None if another process holds the lock, or the folder is gone.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        if fcntl is None:
            raise OSError
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        if must_lock:
            os.close(descriptor)
            return None
    return descriptor


def _sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that does not sync folders
            raise
    finally:
        os.close(descriptor)


def _move(scratch: Path, target: Path, rename: Callable[[Path, Path], None]) -> None:
    """Move a folder to a path that does not exist or is an empty folder."""
    try:
        rename(scratch, target)
    except OSError as error:
        if error.errno not in _OCCUPIED:
            raise
        raise ExportError(
            f"{target}: another export has made it in the meantime; its folder stays and this one is dropped; "
            "choose another folder, or replace it with --overwrite"
        ) from error


def _replace(
    scratch: Path, target: Path, exchange: Callable[[Path, Path], bool], rename: Callable[[Path, Path], None]
) -> None:
    if target.exists() and exchange(scratch, target):
        return
    old = scratch.with_name(f"{scratch.name}{OLD}")
    if target.exists():
        rename(target, old)
    _move(scratch, target, rename)
    shutil.rmtree(old, ignore_errors=True)


def _format(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8")).get("format")
    except (OSError, ValueError, AttributeError):
        return None
