"""Loading a bundle beside the one in use: in a thread that can be left, asked once before it is used."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from cflightning_serve.bundle.cancellation import Cancellation
from cflightning_serve.bundle.manifest import MANIFEST
from cflightning_serve.http.settings import Settings
from cflightning_serve.scorer import Scorer

T = TypeVar("T")
_PAUSE = 0.0005
"""Seconds that requests have for themselves between two steps of a load."""
Mark = tuple[tuple[str, int, int, int], ...]
"""State of a folder: name, inode, size in bytes and time of last change in nanoseconds of each file."""


class Job(threading.Thread, Generic[T]):
    """Work on a bundle that may take too long. A daemon: what cannot be stopped is left, and ends with the process.

    Args:
        work: takes what gives it up.
    """

    def __init__(self, work: Callable[[Cancellation], T]) -> None:
        super().__init__(name="bundle-loading", daemon=True)
        self._work = work
        self._cancellation = Cancellation(_PAUSE)
        self._result: list[T] = []
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Work, and keep what came of it."""
        try:
            self._result.append(self._work(self._cancellation))
        except BaseException as error:
            self._error = error

    def ended(self, seconds: float) -> bool:
        """Wait some seconds for the end, and say whether it came."""
        self.join(seconds)
        return not self.is_alive()

    def give_up(self) -> None:
        """Ask the work to end: at its next step, or at the next node of the graph that it runs."""
        self._cancellation.cancel()

    def result(self) -> T:
        """Return what came of the work, once it has ended; raise what it raised."""
        if self._error is not None:
            raise self._error
        return self._result.pop()


def load(settings: Settings, cancellation: Cancellation) -> Scorer:
    """Load the bundle of a server, all of it, and ask it once.

    No client waits for what onnxruntime allocates first, and a graph that cannot answer is found here.

    Raises:
        BundleError: the bundle cannot be used, or loading was given up.
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
        _ask_once(scorer)
    return scorer


def _ask_once(scorer: Scorer) -> None:
    manifest = scorer.manifest
    user: int | str = 0 if manifest.user_ids == "int64" else ""
    best = scorer.recommend(user)
    if len(best.items):
        scorer.score(user, best.items[0])
        scorer.similar_items(best.items[0])
        scorer.titles(best.items)
        if manifest.catalogue is not None:
            scorer.catalogue.indices(best.items)


def mark_folder(folder: Path) -> Mark:
    """Cheap enough to be taken every second; another one wherever a file was added, changed or replaced."""
    try:
        with os.scandir(folder) as entries:
            stats = [(entry.name, entry.stat()) for entry in entries]
    except OSError:
        return ()
    return tuple(sorted((name, stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in stats))


def mark_manifest(mark: Mark) -> Mark:
    """Return the part of a folder's state that belongs to its manifest; it differs for every other bundle."""
    return tuple(one for one in mark if one[0] == MANIFEST)
