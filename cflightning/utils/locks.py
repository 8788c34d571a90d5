"""Locks between processes: one command at a time works in a folder."""

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
    """Lock a file by the operating system or, on a file system without locks, by a marker file beside it.

    The system releases a lock however its process ends. A marker names its process, and that of an ended process is
    taken over.

    Args:
        path: The file; made if missing, and left there.
        timeout: Seconds to wait for another process; below 0 forever.

    Returns:
        The lock, which the caller releases.

    Raises:
        filelock.Timeout: Another process holds the lock.
        OSError: The file cannot be made.
    """
    lock: BaseFileLock = FileLock(path, timeout=timeout, thread_local=False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # filelock's warning about markers; the one below replaces it
            lock.acquire()
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        lock = SoftFileLock(f"{path}.marker", timeout=timeout, thread_local=False)
        lock.acquire()
    if isinstance(lock, SoftFileLock):
        _warn_about_marker(path.parent)
    return lock


@cache
def _warn_about_marker(folder: Path) -> None:
    """Log the use of a marker, once for each folder."""
    log.warning("%s: the file system has no locks; a marker file is used instead", folder)


@contextmanager
def wait_for_lock(path: Path) -> Iterator[None]:
    """Hold the lock of a file; wait while another process holds it."""
    lock = lock_file(path)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def lock_folder(folder: Path, advice: str = "") -> Iterator[None]:
    """Hold the lock of a folder.

    Args:
        folder: An existing folder.
        advice: Alternative to waiting, for the message.

    Raises:
        ConfigError: Another command works in the folder; names its process.
    """
    path = folder / LOCK
    try:
        lock = lock_file(path, timeout=0)
    except Timeout:
        raise ConfigError(
            f"{folder}: must be used by one command at a time, but {_holder(path)} uses it; wait until it ends{advice}"
        ) from None
    try:
        if not (isinstance(lock, SoftFileLock) and lock.lock_file == str(path)):  # filelock writes the marker itself
            holder = {"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
            path.write_text(json.dumps(holder))
        yield
    finally:
        lock.release()


def _holder(path: Path) -> str:
    """Describe the process that holds a lock."""
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return f"process {holder['pid']} on {holder['host']}, since {holder['since']},"
    except (OSError, ValueError, TypeError, KeyError):  # the holder may be writing the file
        return "another process"
