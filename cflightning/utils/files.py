"""Files that are there whole or not at all."""

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
except ImportError:  # Windows, which deletes no file that is open
    fcntl = None  # type: ignore[assignment]

SCRAP = ".scrap"
"""End of the name of a file that is being written."""
OLD = 3600.0
"""Seconds after which a scrap is swept where the file system cannot say whether a process holds it."""
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
STORAGE = FULL | {errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENAMETOOLONG}
"""Error numbers by which a file system refuses to keep a file."""


class _Raw(io.FileIO):
    """A file that remembers why it could not be written: writers above it may report something else."""

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
    """Open a file that takes its place in one step, at the end: readers see the old one or the new one, never half.

    The content is on the disk before its name is, so this holds after a loss of power too. An exception inside leaves
    the old file as it was, and nothing of the new one behind. Permissions are those of the user's umask.

    Args:
        path: the place; its folder must exist.
        mode: `w` for text in UTF-8, `wb`, or `w+b` to read back what was written.
        newline: as `open` takes it.
        private: whether other users may never read it; otherwise the umask says who may.

    Yields:
        The open file, which lies beside the place until then.

    Raises:
        StorageError: the file cannot be written: no space, no permission.
    """
    try:
        scrap, handle = _make_scrap(path, 0o600 if private else 0o666)
    except OSError as error:
        raise storage_error(path, error) from error
    raw = _Raw(os.dup(handle), "w+b")  # the other one holds the lock to the end
    try:
        buffer = io.BufferedRandom(raw, 1 << 20) if "+" in mode else io.BufferedWriter(raw, 1 << 20)
        out = buffer if "b" in mode else io.TextIOWrapper(buffer, encoding="utf-8", newline=newline)
        try:
            yield out
            out.flush()
            os.fsync(raw.fileno())
        finally:
            with suppress(OSError, ValueError):  # what could not be written is tried again here
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
    """Tell whether an exception is a file system's refusal to keep a file."""
    return isinstance(error, OSError) and error.errno in STORAGE


def storage_error(path: Path, error: BaseException, written: int = 0) -> StorageError:
    """Describe a file that cannot be written.

    Args:
        path: the file.
        error: what the system says.
        written: bytes that were written before.
    """
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    line = f"{path}: cannot be written: {reason}"
    if isinstance(error, OSError) and error.errno in FULL:
        needed = max(written, path.stat().st_size if path.exists() else 0)
        free = shutil.disk_usage(next(folder for folder in path.absolute().parents if folder.exists())).free
        line += f" ({needed / 1e6:,.1f} MB and more are needed, {free / 1e6:,.1f} MB are free)"
    return StorageError(line + ("; what was there before is kept" if path.exists() else ""))


def _make_scrap(path: Path, mode: int) -> tuple[Path, int]:
    """A new file beside `path`, locked where files can be locked, and its descriptor."""
    while True:
        scrap = path.with_name(f".{path.name}-{secrets.token_hex(8)}{SCRAP}")
        # The system applies the umask, which a process with threads cannot ask for safely.
        handle = os.open(scrap, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
        if fcntl is not None:
            with suppress(OSError):  # without locks, age tells
                fcntl.flock(handle, fcntl.LOCK_EX)
            if os.fstat(handle).st_nlink == 0:  # swept between the two
                os.close(handle)
                continue
        return scrap, handle


def sweep(folders: Iterable[Path]) -> None:
    """Delete the scraps of `replacing` that no process holds: of processes that were killed.

    Args:
        folders: where to look; missing ones are left out.
    """
    for folder in folders:
        for scrap in folder.glob(f".*{SCRAP}"):
            with suppress(OSError):  # another one sweeps as well
                handle = os.open(scrap, os.O_RDWR)
                try:
                    if not _held(handle):
                        scrap.unlink()
                finally:
                    os.close(handle)


def _held(handle: int) -> bool:
    """Whether another process holds the lock of an open scrap; takes it if not."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no locks here
        return time.time() - os.fstat(handle).st_mtime < OLD
    return False


def _sync_folder(folder: Path) -> None:
    """Have the folder's names on the disk, where folders can be synchronised."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_csv(path: Path, columns: Mapping[str, Iterable[Any]]) -> None:
    """Write columns of equal length under their names, as `replacing` does."""
    with replacing(path, newline="") as out:
        writer = csv.writer(out)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def make_folder(path: Path) -> Path:
    """Make a folder and those above it, where they are missing.

    Raises:
        StorageError: the folder cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(path, error) from error
    return path


def claim(root: Path, name: str) -> Path:
    """Make the first free folder `root/name_N`; runs that start at once get different ones.

    Raises:
        StorageError: the folder cannot be made.
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
