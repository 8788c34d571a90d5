"""Files that are written completely or not at all."""

from __future__ import annotations

import csv
import errno
import io
import itertools
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cflightning.errors import StorageError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

try:
    import fcntl
except ImportError:  # Windows, which deletes no open file
    fcntl = None  # type: ignore[assignment]

SCRAP = ".scrap"
"""Suffix of a file that is being written."""
SCRAP_SECONDS = 3600.0
"""Age after which a scrap is deleted on a file system without locks."""
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Error numbers of a full disk."""
STORAGE = FULL | {errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENAMETOOLONG}
"""Error numbers of a file system that cannot store a file."""


class _RawFile(io.FileIO):
    """A file that keeps the error of a failed write, for which writers above may raise another one."""

    def __init__(self, handle: int) -> None:
        super().__init__(handle, "w+b")
        self.failure: OSError | None = None
        self.written = 0

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            count = super().write(data) or 0
        except OSError as error:
            self.failure = error
            raise
        self.written += count
        return count


@contextmanager
def atomic_write(path: Path, mode: str = "w", newline: str | None = None, *, private: bool = False) -> Iterator[Any]:
    """Open a file that replaces the one at `path` in one step, at the end: readers see the old or the new content.

    The content is on the disk before the name, so that also holds after a loss of power. After an exception the old
    file is unchanged and the new one deleted. The permissions are those of the user's umask.

    Args:
        path: The place, in an existing folder.
        mode: `w` for text in UTF-8, `wb`, or `w+b` to read back the written content.
        newline: Argument of `open`.
        private: Whether only the owner can read the file, from the start; otherwise the umask decides.

    Yields:
        The open file, which is beside `path` until the end.

    Raises:
        StorageError: The file cannot be written, for lack of space or permission.
    """
    try:
        scrap, handle = _make_scrap(path, 0o600 if private else 0o666)
    except OSError as error:
        raise storage_error(path, error) from error
    raw = _RawFile(os.dup(handle))  # `handle` holds the lock to the end
    try:
        buffer = io.BufferedRandom(raw, 1 << 20) if "+" in mode else io.BufferedWriter(raw, 1 << 20)
        out = buffer if "b" in mode else io.TextIOWrapper(buffer, encoding="utf-8", newline=newline)
        try:
            yield out
            out.flush()
            os.fsync(raw.fileno())
        finally:
            with suppress(OSError, ValueError):  # repeats a failed write
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
    """Return whether an exception means that the file system cannot store a file."""
    return isinstance(error, OSError) and error.errno in STORAGE


def storage_error(path: Path, error: BaseException, written: int = 0) -> StorageError:
    """Describe a file that cannot be written.

    Args:
        path: The file.
        error: Error of the system.
        written: Bytes that were written before it.
    """
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    line = f"{path}: cannot be written: {reason}"
    if isinstance(error, OSError) and error.errno in FULL:
        needed = max(written, path.stat().st_size if path.exists() else 0)
        free = shutil.disk_usage(next(folder for folder in path.absolute().parents if folder.exists())).free
        line += f" (more than {needed / 1e6:,.1f} MB are needed, {free / 1e6:,.1f} MB are free)"
    return StorageError(line + ("; the old file is kept" if path.exists() else ""))


def _make_scrap(path: Path, mode: int) -> tuple[Path, int]:
    """Make a new file beside `path`, locked if the file system has locks; return it and its descriptor."""
    while True:
        scrap = path.with_name(f".{path.name}-{secrets.token_hex(8)}{SCRAP}")
        # The system applies the umask, which a process with threads cannot read safely.
        handle = os.open(scrap, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
        if fcntl is not None:
            with suppress(OSError):  # without locks, `sweep` goes by the age
                fcntl.flock(handle, fcntl.LOCK_EX)
            if os.fstat(handle).st_nlink == 0:  # deleted by `sweep` before it was locked
                os.close(handle)
                continue
        return scrap, handle


def sweep(folders: Iterable[Path]) -> None:
    """Delete the scraps that killed processes left in `atomic_write`.

    Args:
        folders: Folders of the scraps; they can be missing.
    """
    for folder in folders:
        for scrap in folder.glob(f".*{SCRAP}"):
            with suppress(OSError):  # another process may delete it as well
                handle = os.open(scrap, os.O_RDWR)
                try:
                    if not _is_in_use(handle):
                        scrap.unlink()
                finally:
                    os.close(handle)


def _is_in_use(handle: int) -> bool:
    """Return whether another process holds the lock of an open scrap; otherwise take the lock."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return time.time() - os.fstat(handle).st_mtime < SCRAP_SECONDS
    return False


def _sync_folder(folder: Path) -> None:
    """Write the names in a folder to the disk, if the system can synchronise folders."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_csv(path: Path, columns: Mapping[str, Iterable[object]]) -> None:
    """Write named columns of equal length, as `atomic_write` does."""
    with atomic_write(path, newline="") as out:
        writer = csv.writer(out)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write an object as JSON, as `atomic_write` does."""
    with atomic_write(path) as out:
        out.write(json.dumps(content, indent=2) + "\n")


def make_folder(path: Path) -> Path:
    """Make a folder and its parents, if they are missing.

    Raises:
        StorageError: The folder cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(path, error) from error
    return path


def make_numbered_folder(root: Path, name: str) -> Path:
    """Make the first free folder `root/name_N`; simultaneous runs get different ones.

    Raises:
        StorageError: The folder cannot be made.
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
