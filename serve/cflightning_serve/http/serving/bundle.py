"""The bundle in use, and how the next one takes its place."""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from cflightning_serve import Scorer
from cflightning_serve.bundle.cancellation import Cancellation
from cflightning_serve.bundle.manifest import Manifest
from cflightning_serve.errors import BundleError
from cflightning_serve.http.serving.drift import Spread
from cflightning_serve.http.serving.loading import Job, Mark, load, mark_folder, mark_manifest
from cflightning_serve.http.serving.metrics import Metrics
from cflightning_serve.http.settings import Settings

log = logging.getLogger(__name__)

_REMEMBERED = 1 << 17
"""Users, some 10 MB; and items, some 20."""
encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode

T = TypeVar("T")
_STEP = 0.1
"""Seconds between two looks at a load that goes on."""
_PATIENCE = 2.0
"""Seconds for a load to end once it is given up."""
_MOST_LEFT = 2
"""Loads that were given up and have not ended."""
_LONGEST_DELAY = 300.0
"""Seconds before a bundle that was refused is tried again."""


@dataclass(frozen=True)
class Served:
    """One bundle, every graph of it open, and the spread of what it answered."""

    scorer: Scorer
    spreads: dict[str, Spread]
    version: str
    """First digits of the manifest's digest."""
    loaded: float = field(default_factory=time.time)
    """When, in seconds since 1970."""
    _known: set[int | str] = field(default_factory=set)
    _texts: dict[int | str, str] = field(default_factory=dict)

    def knows_user(self, user: int | str) -> bool:
        """As ``Scorer.knows_user``; who was found known is remembered, since asking costs half of a recommendation."""
        if user in self._known:
            return True
        known = self.scorer.knows_user(user)
        if known and len(self._known) < _REMEMBERED:
            self._known.add(user)
        return known

    def text_of(self, item: int | str) -> str:
        """JSON of an item and its title, up to where its score follows; remembered."""
        text = self._texts.get(item)
        if text is None:
            text = f'{{"item":{encode(item)},"title":{encode(self.scorer.title(item))},"score":'
            if len(self._texts) < _REMEMBERED:
                self._texts[item] = text
        return text


class State:
    """What the routes share. A route takes ``served`` once and keeps to it, so that no answer mixes two bundles.

    Args:
        settings: of the server.
        scorer: in place of the bundle's own; for tests.

    Raises:
        BundleError: the bundle cannot be used.
    """

    def __init__(self, settings: Settings, scorer: Scorer | None = None) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self._mark = mark_folder(settings.bundle)
        self._failures, self._again = 0, math.inf  # of the bundle that lies there, and when it is tried again
        self._left: list[Job[Any]] = []
        self._stopped = threading.Event()
        self.served = _serve(scorer or self._do(lambda cancellation: load(settings, cancellation), self._mark))

    def look(self, *, forced: bool = False) -> None:
        """Take up the bundle in the folder if it is another one; keep the one in use where it is damaged.

        Called by one thread at a time, which is not the event loop's. What failed is tried again when the folder
        changes, or after a time that doubles with each failure.

        Args:
            forced: look even where nothing has changed and no time has passed.
        """
        mark = mark_folder(self.settings.bundle)
        if mark == self._mark and not forced and time.monotonic() < self._again:
            return
        try:
            fresh = self._do(self._take_up, mark)
        except _Left as reason:
            log.info("%s; looking again", reason)
        except Exception as error:
            if mark != mark_folder(self.settings.bundle):  # it is being written: look again before complaining
                return
            self._refuse(mark, error)
        else:
            self._mark, self._failures, self._again = mark, 0, math.inf
            if fresh is not None:
                self.served.scorer.release_in_steps()
                self.served = fresh
                self.metrics.reload("loaded")
                log.info("serving bundle %s, created %s", fresh.version, fresh.scorer.manifest.created)

    def stop(self) -> None:
        """Give up what is being loaded, and load nothing more."""
        self._stopped.set()

    def is_left_with_work(self) -> bool:
        """Whether a load that was given up goes on all the same."""
        return any(job.is_alive() for job in self._left)

    def _take_up(self, cancellation: Cancellation) -> Served | None:
        """Load what lies in the folder; nothing where it is the bundle in use, still as it was."""
        settings = self.settings
        manifest = Manifest.read(settings.bundle, settings.trust)
        if manifest.sha256 != self.served.scorer.manifest.sha256:
            return _serve(load(settings, cancellation))
        try:
            manifest.verify(digests=settings.verify, check=cancellation.check)
        except BundleError as error:
            raise _Changed(f"{error}; replace bundles by renaming, never in place") from error
        return None

    def _do(self, work: Callable[[Cancellation], T], mark: Mark) -> T:
        """Do work on the folder, for as long as it is worth while.

        Raises:
            _Left: another bundle has come meanwhile, or the server ends.
            BundleError: it took too long, or the work's own.
        """
        self._left = [job for job in self._left if job.is_alive()]
        if len(self._left) >= _MOST_LEFT:
            raise BundleError(
                f"{self.settings.bundle}: {len(self._left)} loads that were given up have not ended; restart the server"
            )
        job = Job(work)
        limit = time.monotonic() + self.settings.load_seconds
        try:
            while not job.ended(_STEP):
                if self._stopped.is_set():
                    raise _Left("the server ends")
                if mark_manifest(mark_folder(self.settings.bundle)) != mark_manifest(mark):
                    raise _Left("another bundle came while one was loaded")
                if time.monotonic() > limit:
                    raise BundleError(
                        f"{self.settings.bundle}: must be loaded and give a first answer within "
                        f"{self.settings.load_seconds:g} seconds, did not; export it again, or raise --load-seconds"
                    )
        except BaseException:
            job.give_up()
            if not job.ended(_PATIENCE):  # it holds its memory until it ends, if ever, and then is freed
                self._left.append(job)
            raise
        return job.result()

    def _refuse(self, mark: Mark, error: Exception) -> None:
        self._mark = mark
        if isinstance(error, _Changed):
            self._again = math.inf
            self.metrics.reload("changed")
            log.error("kept bundle %s as it was loaded: %s", self.served.version, error)
            return
        self.metrics.reload("refused")
        again = ""
        if self.settings.poll:
            delay = min(self.settings.poll * 2 ** min(self._failures, 30), _LONGEST_DELAY)
            self._failures += 1
            self._again = time.monotonic() + delay
            again = f"; trying again in {delay:g} s"
        told = None if isinstance(error, BundleError) else error  # a traceback where the fault is ours
        log.error("kept bundle %s: %s%s", self.served.version, error, again, exc_info=told)


class _Left(Exception):
    """Work on a folder that was not worth finishing."""


class _Changed(BundleError):
    """The files of the bundle in use are no longer what its manifest says."""


class Watcher(threading.Thread):
    """Looks at the folder every ``settings.poll`` seconds, and whenever it is woken.

    Args:
        state: whose bundle it keeps up to date.
    """

    def __init__(self, state: State) -> None:
        super().__init__(name="bundle-watcher", daemon=True)
        self._state = state
        self._woken = threading.Event()
        self._stopped = False

    def wake(self) -> None:
        """Look now, whatever has failed before."""
        self._woken.set()

    def stop(self) -> None:
        """End; a load that has begun is given up."""
        self._stopped = True
        self._state.stop()
        self._woken.set()
        self.join()

    def run(self) -> None:
        """Look until stopped."""
        while True:
            # Holds the last bundle for one more round: it is freed here, not by the event loop between two requests.
            in_use = self._state.served
            forced = self._woken.wait(self._state.settings.poll or None)
            self._woken.clear()
            if self._stopped:
                return
            try:
                self._state.look(forced=forced)
            except Exception:
                log.exception("kept bundle %s", in_use.version)


def _serve(scorer: Scorer) -> Served:
    manifest = scorer.manifest
    spreads = {question: Spread(reference) for question, reference in manifest.reference.items()}
    return Served(scorer, spreads, manifest.sha256[:12])
