"""The journal of a search: its lock, and its repair after a process has died while it wrote."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from filelock import BaseFileLock
from optuna.storages.journal import JournalFileOpenLock

from cflightning.utils.locks import lock_file

log = logging.getLogger(__name__)


class JournalLock(JournalFileOpenLock):
    """The system's lock, which goes with its process; Optuna's own is waited for half a minute after a kill.

    Args:
        path: the journal.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._journal = path
        self._held: BaseFileLock | None = None

    def acquire(self) -> bool:
        """Wait for the lock, and cut off what another process has written of a line before it died."""
        self._held = lock_file(self._journal.with_name(f"{self._journal.name}.lock"))
        with self._journal.open("ab+") as journal:
            size = journal.tell()
            journal.seek(max(size - 1, 0))
            if size and journal.read(1) != b"\n":
                repair(self._journal)
        return True

    def release(self) -> None:
        """Let the next process write."""
        assert self._held is not None
        self._held.release()


def repair(journal: Path) -> None:
    """Cut a journal off before its first damaged line, and say so; a missing or sound one is left alone.

    A kill or a loss of power leaves half a line at the end. What follows a damaged line cannot be kept, since trials
    are counted by lines; it goes to a file beside the journal.

    Args:
        journal: the file; no process may write to it meanwhile.
    """
    if not journal.is_file():
        return
    content = journal.read_bytes()
    good = 0
    for line in content.splitlines(keepends=True):
        try:
            if not line.endswith(b"\n") or not isinstance(json.loads(line), dict):
                break
        except ValueError:
            break
        good += len(line)
    lost = content[good:]
    if not lost:
        return
    lines = lost.count(b"\n") + (not lost.endswith(b"\n"))
    kept = ""
    if lines > 1:
        beside = journal.with_suffix(".damaged")
        beside.write_bytes(lost)
        kept = f", kept as {beside.name}"
    with journal.open("rb+") as out:
        out.truncate(good)
        out.flush()
        os.fsync(out.fileno())
    log.warning("%s: a damaged end is cut off (%d line(s)%s); the search goes on before it", journal, lines, kept)
