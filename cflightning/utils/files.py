"""Atomic writing of files and folders."""

from __future__ import annotations

import csv
import errno
import io
import itertools
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cflightning.errors import StorageError

try:
    import fcntl
except ImportError:  # Windows, which does not delete open files
    fcntl = None  # type: ignore[assignment]

SCRAP = ".scrap"
"""File name suffix of a temporary file."""
OLD = 3600.0
"""Age in seconds after which a temporary file is removed on a file system without locks."""
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
STORAGE = FULL | {errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENAMETOOLONG}
"""Error numbers of file systems that cannot store a file."""


class _Raw(io.FileIO):
    """Raw file that stores its write error, which buffered writers may replace by another one."""

    failure: OSError | None = None
    written = 0

    def write(self, data: Any) -> int:
        try:
            count = super().write(data)
        except OSError as error:
            self.failure = error
            raise
        self.written += count or 0
        return count or 0


@contextmanager
def replacing(path: Path, mode: str = "w", newline: str | None = None, *, private: bool = False) -> Iterator[Any]:
    """Write a file that replaces `path` atomically on success: readers see the old or the new content, never a part.

    The content is flushed to disk before the rename, so this also holds after a loss of power. An exception keeps
    the old file and removes the new one. Permissions follow the user's umask.

    Args:
        path: target file; its folder must exist.
        mode: `w` for text in UTF-8, `wb`, or `w+b` to read back what was written.
        newline: argument of `open`.
        private: whether to deny access to other users whatever the umask.

    Yields:
        The open temporary file, in the folder of `path`.

    Raises:
        StorageError: the file cannot be written, for lack of space or permission.
    """
    try:
        scrap, handle = _make_scrap(path, 0o600 if private else 0o666)
    except OSError as error:
        raise storage_error(path, error) from error
    raw = _Raw(os.dup(handle), "w+b")  # `handle` keeps the lock until the end
    try:
        buffer = io.BufferedRandom(raw, 1 << 20) if "+" in mode else io.BufferedWriter(raw, 1 << 20)
        out = buffer if "b" in mode else io.TextIOWrapper(buffer, encoding="utf-8", newline=newline)
        try:
            yield out
            out.flush()
            os.fsync(raw.fileno())
        finally:
            with suppress(OSError, ValueError):  # closing writes the rest of the buffer again
                out.close()
            raw.close()
        if fcntl is None:
            os.close(handle)
        os.replace(scrap, path)
        _sync_folder(path.parent)
    except Exception as error:
        failure = raw.failure or error
        if isinstance(failure, StorageError) or not is_storage_failure(failure):
            raise
        raise storage_error(path, failure, raw.written) from error
    finally:
        scrap.unlink(missing_ok=True)
        with suppress(OSError):
            os.close(handle)


def is_storage_failure(error: BaseException) -> bool:
    """Return whether an exception reports that a file system cannot store a file."""
    return isinstance(error, OSError) and error.errno in STORAGE


def storage_error(path: Path, error: BaseException, written: int = 0) -> StorageError:
    """Describe a file that cannot be written.

    Args:
        path: the file.
        error: error of the operating system.
        written: bytes that were written before it.
    """
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    line = f"{path}: cannot be written: {reason}"
    if isinstance(error, OSError) and error.errno in FULL:
        needed = max(written, path.stat().st_size if path.exists() else 0)
        free = shutil.disk_usage(next(folder for folder in path.absolute().parents if folder.exists())).free
        line += f" ({needed / 1e6:,.1f} MB and more are needed, {free / 1e6:,.1f} MB are free)"
    return StorageError(line + ("; the old file is kept" if path.exists() else ""))


def _make_scrap(path: Path, mode: int) -> tuple[Path, int]:
    """Create a temporary file beside `path`, locked if possible; return its path and descriptor."""
    while True:
        scrap = path.with_name(f".{path.name}-{secrets.token_hex(8)}{SCRAP}")
        # The system applies the umask, which a process with threads cannot read safely.
        handle = os.open(scrap, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
        if fcntl is not None:
            with suppress(OSError):  # without locks, `sweep` uses the age
                fcntl.flock(handle, fcntl.LOCK_EX)
            if os.fstat(handle).st_nlink == 0:  # removed by `sweep` before it was locked
                os.close(handle)
                continue
        return scrap, handle


def sweep(folders: Iterable[Path]) -> None:
    """Delete temporary files of killed processes, which no process has locked.

    Args:
        folders: folders to search; missing ones are skipped.
    """
    for folder in folders:
        for scrap in folder.glob(f".*{SCRAP}"):
            with suppress(OSError):  # another process removes it at the same time
                handle = os.open(scrap, os.O_RDWR)
                try:
                    if not _held(handle):
                        scrap.unlink()
                finally:
                    os.close(handle)


def _held(handle: int) -> bool:
    """Return whether another process holds the lock of an open file; lock it otherwise."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # the file system has no locks
        return time.time() - os.fstat(handle).st_mtime < OLD
    return False


def _sync_folder(folder: Path) -> None:
    """Flush the folder's entries to disk, if the system supports it."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_csv(path: Path, columns: Mapping[str, Iterable[Any]]) -> None:
    """Write columns of equal length atomically as CSV; the mapping has their names."""
    with replacing(path, newline="") as out:
        writer = csv.writer(out)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def make_folder(path: Path) -> Path:
    """Create a folder and its missing parents.

    Raises:
        StorageError: the folder cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(path, error) from error
    return path


def claim(root: Path, name: str) -> Path:
    """Create the first free folder `root/name_N`; concurrent runs get different ones.

    Raises:
        StorageError: the folder cannot be created.
    """
    for number in itertools.count():
        try:
            (root / f"{name}_{number}").mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise storage_error(root / f"{name}_{number}", error) from error
        return root / f"{name}_{number}"
    raise AssertionError
