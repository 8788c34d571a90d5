"""The journal of a search: its lock, and its repair after a process was killed while writing."""

from __future__ import annotations

import itertools
import json
import logging
import os
from pathlib import Path

from filelock import BaseFileLock
from optuna.storages.journal import JournalFileOpenLock

from cflightning.utils.locks import lock_file

log = logging.getLogger(__name__)


class JournalLock(JournalFileOpenLock):
    """A lock of the operating system, released when its process ends; Optuna's own blocks for 30 s after a kill.

    Args:
        path: The journal.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._journal = path
        self._lock: BaseFileLock | None = None

    def acquire(self) -> bool:
        """Wait for the lock, and cut off an incomplete line of a killed process."""
        self._lock = lock_file(self._journal.with_name(f"{self._journal.name}.lock"))
        with self._journal.open("ab+") as journal:
            size = journal.tell()
            journal.seek(max(size - 1, 0))
            if size and journal.read(1) != b"\n":
                repair(self._journal)
        return True

    def release(self) -> None:
        """Release the lock."""
        assert self._lock is not None
        self._lock.release()


def repair(journal: Path) -> None:
    """Cut a journal off before its first damaged line, with a warning; leave an intact or missing one unchanged.

    A kill or a loss of power leaves an incomplete line at the end. Lines after a damaged one cannot be used, since
    Optuna numbers trials by lines; they are moved to a file beside the journal.

    Args:
        journal: The file; no process may write to it meanwhile.
    """
    if not journal.is_file():
        return
    lines = journal.read_bytes().splitlines(keepends=True)
    intact = list(itertools.takewhile(_is_intact, lines))
    damaged = lines[len(intact) :]
    if not damaged:
        return
    note = ""
    if len(damaged) > 1:
        copy = journal.with_suffix(".damaged")
        copy.write_bytes(b"".join(damaged))
        note = f", kept as {copy.name}"
    with journal.open("rb+") as out:
        out.truncate(sum(map(len, intact)))
        out.flush()
        os.fsync(out.fileno())
    log.warning(
        "%s: a damaged end is cut off (%d line(s)%s); the search continues before it", journal, len(damaged), note
    )


def _is_intact(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except ValueError:
        return False
