"""Folders that are complete or not there: made in a scratch folder beside their place, then moved into it."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cflightning.errors import CFLightningError, ExportError
from cflightning_export.scratch import OLD, repair, scratch_folder

FORMAT = "cflightning-bundle"
LAYOUT_FORMAT = "cflightning-layout"
_MARKS = {"manifest.json": FORMAT, "layout.json": LAYOUT_FORMAT}
"""File at the top of a folder that an export has written -> its `format`."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
"""Errors of renaming a folder to a place where something is."""
_AT_FDCWD, _EXCHANGE = -100, 2
"""Arguments of renameat2: paths relative to the current folder, and the flag that exchanges them."""


def check_target(target: Path, overwrite: bool) -> None:
    """Make sure that an export may take the place, and repair what one that was killed has left.

    Args:
        target: the folder to make, absolute.
        overwrite: whether what an earlier export wrote is replaced; any other existing folder is never touched, but
            for an empty one.

    Raises:
        ExportError: something is there that has to stay.
    """
    repair(target)
    if target.is_symlink():
        raise ExportError(f"{target}: is a link; name the folder itself")
    if not target.exists():
        return
    if target == Path.cwd():
        raise ExportError(f"{target}: is the current folder; name one to be made in it")
    if target.is_dir() and not any(target.iterdir()):
        return
    if not any(_format(target / name) == ours for name, ours in _MARKS.items()):
        raise ExportError(f"{target}: exists and is no bundle; choose another folder")
    if not overwrite:
        raise ExportError(f"{target}: exists; choose another folder, or replace it with --overwrite")


def exchange(one: Path, other: Path) -> bool:
    """Let two folders change places in one step; False where the system or the file system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE) == 0:
        return True
    if ctypes.get_errno() in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM):
        return False
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(other))


@contextmanager
def placed(
    target: Path,
    *,
    overwrite: bool = False,
    exchange: Callable[[Path, Path], bool] = exchange,
    rename: Callable[[Path, Path], None] = os.rename,
) -> Iterator[Path]:
    """Give a scratch folder that takes its place when the block ends, and goes when it fails.

    The old folder or the new one is there at any moment, also after a loss of power. Where two folders cannot be
    exchanged, the old one leaves first, and is brought back (`repair`) or read where it is (`cflightning_serve`) if
    the process ends before the new one is there.

    Args:
        target: the folder to make, absolute and checked.
        overwrite: whether what is there by then is replaced.
        exchange: lets two folders change places, or returns False.
        rename: of a folder.

    Raises:
        ExportError: it cannot be written, or another process has taken the place in the meantime.
    """
    with writing(target), scratch_folder(target) as scratch:
        yield scratch
        sync(scratch)
        if overwrite:
            check_target(target, overwrite)  # once more: something else may have come there
            _replace(scratch, target, exchange, rename)
        else:
            _place(scratch, target, rename)
        _sync(target.parent)


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turn errors of the file system into `ExportError`: what cannot be written, and what is kept."""
    try:
        yield
    except CFLightningError:  # some are OSErrors as well
        raise
    except OSError as error:
        kept = "what was there stays as it was" if target.exists() else "nothing is left behind"
        free = ""
        if error.errno in _FULL:
            there = next(parent for parent in target.parents if parent.exists())
            free = f" ({shutil.disk_usage(there).free / 1e6:,.1f} MB are free)"
        raise ExportError(f"{target}: cannot be written: {error.strerror}{free}; {kept}") from error


def require_space(folder: Path, needed: int) -> None:
    """Refuse to write what there is no room for.

    Args:
        folder: where it is to be.
        needed: bytes.

    Raises:
        OSError: there are fewer.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: needs {needed / 1e6:,.1f} MB")


def sync(folder: Path) -> None:
    """Wait until a folder, and all that is in it, is on the disk."""
    for path in [*folder.rglob("*"), folder]:
        _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # file systems that do not sync folders
            raise
    finally:
        os.close(handle)


def _place(scratch: Path, target: Path, rename: Callable[[Path, Path], None]) -> None:
    """Move a folder to where nothing is, or an empty folder."""
    try:
        rename(scratch, target)
    except OSError as error:
        if error.errno not in _TAKEN:
            raise
        raise ExportError(
            f"{target}: another export has taken the place in the meantime; its folder stays and this one is dropped; "
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
    _place(scratch, target, rename)
    shutil.rmtree(old, ignore_errors=True)


def _format(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8")).get("format")
    except (OSError, ValueError, AttributeError):
        return None
