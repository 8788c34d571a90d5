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
"""Error numbers by which a file system (NFS, FUSE, some containers) says that it has no locks."""
LOCK = ".lock"
"""Name of the file that is locked in a folder."""


def lock_file(path: Path, timeout: float = -1) -> BaseFileLock:
    """Lock a file: by the operating system where it can, else by a marker file beside it; either is logged.

    The system releases a lock however its process ends. A marker names its process, and one whose process is gone
    is taken over.

    Args:
        path: the file; made where it is missing, and left there.
        timeout: seconds to wait for another holder; below 0 for ever.

    Returns:
        The lock, to be released.

    Raises:
        filelock.Timeout: another process holds the lock.
        OSError: the file cannot be made.
    """
    lock: BaseFileLock = FileLock(path, timeout=timeout, thread_local=False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # filelock's word on a marker; ours follows
            lock.acquire()
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        lock = SoftFileLock(f"{path}.marker", timeout=timeout, thread_local=False)
        lock.acquire()
    if isinstance(lock, SoftFileLock):
        _say_that_there_are_no_locks(path.parent)
    return lock


@cache
def _say_that_there_are_no_locks(folder: Path) -> None:
    log.warning("%s: the file system has no locks; a marker file is used instead", folder)


@contextmanager
def wait_for_lock(path: Path) -> Iterator[None]:
    """Hold the lock of a file, after waiting for whoever holds it."""
    lock = lock_file(path)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def lock_folder(folder: Path, otherwise: str = "") -> Iterator[None]:
    """Hold the lock of a folder, which must exist.

    Args:
        folder: where one command at a time may work.
        otherwise: advice besides waiting, for the message.

    Raises:
        ConfigError: another command works there; names its process.
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
        if not (isinstance(lock, SoftFileLock) and lock.lock_file == str(path)):  # a marker has a content of its own
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
    except (OSError, ValueError, TypeError, KeyError):  # it may be writing that just now
        return "another one"
