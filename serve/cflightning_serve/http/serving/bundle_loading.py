"""Loading of a bundle while another one is served, in a thread that can be abandoned."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from cflightning_serve.bundle.cancellation import Cancellation
from cflightning_serve.bundle.manifest import MANIFEST
from cflightning_serve.http.settings import Settings
from cflightning_serve.scorer import Scorer

T = TypeVar("T")
_PAUSE = 0.0005
"""Seconds between two steps of a load, in which requests are served."""


class FileState(NamedTuple):
    """Name, inode, size in bytes and modification time in nanoseconds of a file."""

    name: str
    inode: int
    size: int
    modified: int


FolderFingerprint = tuple[FileState, ...]
"""State of the files of a folder; differs after every change."""


def fingerprint_folder(folder: Path) -> FolderFingerprint:
    """Return the fingerprint of a folder; cheap enough for every second. Empty for a folder that cannot be read."""
    try:
        with os.scandir(folder) as entries:
            stats = [(entry.name, entry.stat()) for entry in entries]
    except OSError:
        return ()
    return tuple(sorted(FileState(name, stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in stats))


def manifest_state(fingerprint: FolderFingerprint) -> FileState | None:
    """Return the state of the manifest; it differs for every bundle. None for a folder without one."""
    return next((file for file in fingerprint if file.name == MANIFEST), None)


class LoadJob(threading.Thread, Generic[T]):
    """A thread that loads a bundle. It is a daemon: what cannot be cancelled is abandoned and ends with the process.

    Args:
        function: the load; it gets a token that cancels it.
    """

    def __init__(self, function: Callable[[Cancellation], T]) -> None:
        super().__init__(name="bundle-loading", daemon=True)
        self._function = function
        self._cancellation = Cancellation(_PAUSE)
        self._results: list[T] = []
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Load, and keep the result or exception."""
        try:
            self._results.append(self._function(self._cancellation))
        except BaseException as error:
            self._error = error

    def wait(self, seconds: float) -> bool:
        """Wait for the end at most some seconds, and return whether the thread has ended."""
        self.join(seconds)
        return not self.is_alive()

    def cancel(self) -> None:
        """Ask the load to end, at its next step or at the next node of a running graph."""
        self._cancellation.cancel()

    def result(self) -> T:
        """Return the result of a load that has ended, or raise its exception."""
        if self._error is not None:
            raise self._error
        return self._results.pop()


def load_bundle(settings: Settings, cancellation: Cancellation) -> Scorer:
    """Load all of a server's bundle and run each graph once.

    No client then waits for the first allocations of onnxruntime, and a broken graph is detected here.

    Raises:
        BundleError: the bundle cannot be used, or loading was cancelled.
    """
    scorer = Scorer.load(
        settings.bundle,
        verify=settings.verify,
        threads=settings.threads,
        eager=True,
        mapped=settings.mapped,
        trust=settings.trust,
        cancellation=cancellation,
    )
    with scorer.graphs.cancelled_by(cancellation):
        _warm_up(scorer)
    return scorer


def _warm_up(scorer: Scorer) -> None:
    manifest = scorer.manifest
    user: int | str = 0 if manifest.user_ids == "int64" else ""
    best = scorer.recommend(user)
    if len(best.items):
        scorer.score(user, best.items[0])
        scorer.similar_items(best.items[0])
        scorer.titles(best.items)
        if manifest.catalogue is not None:
            scorer.catalogue.indices(best.items)
