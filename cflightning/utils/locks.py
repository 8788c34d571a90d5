"""File locks: only one command at a time works in a folder."""

from __future__ import annotations

import errno
import json
import logging
import os
import platform
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from cflightning.errors import ConfigError

log = logging.getLogger(__name__)

NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})
"""Error numbers of file systems without locks (NFS, FUSE, some containers)."""
LOCK = ".lock"
"""Name of the lock file of a folder."""


def lock_file(path: Path, timeout: float = -1) -> BaseFileLock:
    """Lock a file with the operating system, or with a marker file and a warning if the file system has no locks.

    The system releases the lock of a process that ends in any way. A marker names its process, and is replaced if that
    process has ended.

    Args:
        path: lock file; created if missing, and not removed.
        timeout: seconds to wait for another process; no limit if negative.

    Returns:
        The acquired lock.

    Raises:
        filelock.Timeout: another process holds the lock.
        OSError: the file cannot be created.
    """
    lock: BaseFileLock = FileLock(path, timeout=timeout, thread_local=False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # filelock warns about the marker; the log line below replaces it
            lock.acquire()
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        lock = SoftFileLock(f"{path}.marker", timeout=timeout, thread_local=False)
        lock.acquire()
    if isinstance(lock, SoftFileLock):
        _warn_about_missing_locks(path.parent)
    return lock


@cache
def _warn_about_missing_locks(folder: Path) -> None:
    log.warning("%s: the file system has no locks; a marker file is used instead", folder)


@contextmanager
def wait_for_lock(path: Path) -> Iterator[None]:
    """Hold the lock of a file; wait for it if another process holds it."""
    lock = lock_file(path)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def lock_folder(folder: Path, otherwise: str = "") -> Iterator[None]:
    """Hold the lock of a folder, which must exist.

    Args:
        folder: folder that only one command at a time may use.
        otherwise: alternative to waiting, for the message.

    Raises:
        ConfigError: another command uses the folder; the message names its process.
    """
    path = folder / LOCK
    try:
        lock = lock_file(path, timeout=0)
    except Timeout:
        raise ConfigError(
            f"{folder}: must be worked on by one command at a time, but {_holder(path)} is at it; wait for its end"
            f"{otherwise}"
        ) from None
    try:
        if not (isinstance(lock, SoftFileLock) and lock.lock_file == str(path)):  # a marker file already has content
            path.write_text(
                json.dumps({"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S")})
            )
        yield
    finally:
        lock.release()


def _holder(path: Path) -> str:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return f"process {found['pid']} on {found['host']}, since {found['since']},"
    except (OSError, ValueError, TypeError, KeyError):  # the other process may be writing it
        return "another one"
