"""Scratch folders beside the place of what is made in them; those of killed processes are removed by the next one."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows: there nothing is known to be unused, and nothing is removed
    fcntl = None  # type: ignore[assignment]

OLD = ".old"
"""Suffix of a folder that had to leave its place before the new one was there."""


@contextmanager
def scratch_folder(target: Path) -> Iterator[Path]:
    """Make a folder beside `target`, which only this process uses, and remove it in the end if it is still there.

    A lock on the folder says that it is in use; the system releases it when the process ends, however it does.

    Args:
        target: what is made in it, absolute; its parents are made.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep(target)
    while True:
        folder = target.with_name(f".{target.name}-{secrets.token_hex(8)}")
        folder.mkdir()  # as the umask says
        held = _hold(folder)
        if held is not None and folder.exists():
            break
        if held is not None:  # another process took it for a left one in the moment before it was held
            os.close(held)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


def sweep(target: Path) -> None:
    """Remove what earlier processes left beside `target`, unless they still use it.

    Folders that left their place stay as long as there is nothing in it.
    """
    for folder in _of(target):
        if (folder.suffix != OLD or target.exists()) and (held := _hold(folder, removable=True)) is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(held)


def repair(target: Path) -> None:
    """Bring back the folder that left its place, where a process ended before the new one took it."""
    if not target.exists() and not target.is_symlink() and target.parent.is_dir():
        left = [folder for folder in _of(target) if folder.suffix == OLD]
        if left:
            max(left, key=lambda folder: folder.stat().st_mtime_ns).rename(target)


def _of(target: Path) -> list[Path]:
    """Scratch folders of a target."""
    name = re.compile(rf"\.{re.escape(target.name)}-[0-9a-f]{{16}}({re.escape(OLD)})?")
    try:
        return [path for path in target.parent.iterdir() if name.fullmatch(path.name) and path.is_dir()]
    except OSError:  # a folder that can be written to but not listed
        return []


def _hold(folder: Path, *, removable: bool = False) -> int | None:
    """Lock a folder.

    Args:
        folder: to be locked.
        removable: whether a folder that cannot be locked, as on some network file systems, counts as held by another.

    Returns:
        A file descriptor, to be closed; None where another process holds it, or it is gone.
    """
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        if fcntl is None:
            raise OSError
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    except OSError:
        if removable:
            os.close(handle)
            return None
    return handle
