"""State that all routes share, and reloads of the bundle."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from cflightning_serve import Scorer
from cflightning_serve.bundle.cancellation import Cancellation
from cflightning_serve.bundle.manifest import Manifest
from cflightning_serve.errors import BundleError
from cflightning_serve.http.serving.bundle_loading import (
    FolderFingerprint,
    LoadJob,
    fingerprint_folder,
    load_bundle,
    manifest_state,
)
from cflightning_serve.http.serving.executor import Executor
from cflightning_serve.http.serving.loaded_bundle import LoadedBundle
from cflightning_serve.http.serving.memory_budget import MemoryBudget
from cflightning_serve.http.serving.metrics import Metrics
from cflightning_serve.http.settings import Settings

log = logging.getLogger(__name__)

T = TypeVar("T")
Loader = Callable[[Settings, Cancellation], Scorer]

_CHECK_INTERVAL = 0.1
"""Seconds between two checks of a load in progress."""
_CANCEL_TIMEOUT = 2.0
"""Seconds that a cancelled load has to end."""
_MAX_ABANDONED = 2
"""Cancelled loads that may still be running."""
_MAX_RETRY_DELAY = 300.0
"""Seconds before a refused bundle is tried again, at most."""


class ServerState:
    """Settings, executor, memory budget, metrics and the loaded bundle.

    A route reads ``bundle`` once per request, so that no response mixes two bundles.

    Args:
        settings: settings of the server.
        scorer: scorer to serve in place of the bundle's own; for tests.
        executor: runs long computations.
        loader: loads the bundle of the settings.
        cancel_timeout: seconds that a cancelled load has to end.
        clock: monotonic time in seconds.

    Raises:
        BundleError: the bundle cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        scorer: Scorer | None = None,
        *,
        executor: Executor | None = None,
        loader: Loader = load_bundle,
        cancel_timeout: float = _CANCEL_TIMEOUT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.executor = executor or Executor()
        self.budget = MemoryBudget(settings.limits.memory)
        self.metrics = Metrics(lambda: self.bundle)
        self._loader, self._cancel_timeout, self._clock = loader, cancel_timeout, clock
        self._fingerprint = fingerprint_folder(settings.bundle)
        self._num_failures, self._retry_at = 0, math.inf
        self._abandoned: list[LoadJob[Any]] = []
        self._stopping = threading.Event()
        if scorer is None:
            scorer = self._run_job(lambda cancellation: loader(settings, cancellation), self._fingerprint)
        self.bundle = LoadedBundle(scorer)

    def reload_if_changed(self, *, force: bool = False) -> None:
        """Load the bundle in the folder if it is a new one; keep the loaded one if the new one is damaged.

        Called by one thread at a time, not by the event loop. A failed load is repeated when the folder changes, or
        after a delay that doubles with each failure.

        Args:
            force: check even if the folder is unchanged and the delay has not passed.
        """
        fingerprint = fingerprint_folder(self.settings.bundle)
        if fingerprint == self._fingerprint and not force and self._clock() < self._retry_at:
            return
        try:
            bundle = self._run_job(self._load_if_new, fingerprint)
        except _LoadAbandoned as reason:
            log.info("%s; checking again", reason)
        except Exception as error:
            if fingerprint == fingerprint_folder(self.settings.bundle):  # else it is still being written
                self._refuse(fingerprint, error)
        else:
            self._fingerprint, self._num_failures, self._retry_at = fingerprint, 0, math.inf
            if bundle is not None:
                self.bundle.scorer.release_in_steps()
                self.bundle = bundle
                self.metrics.count_reload("loaded")
                log.info("serving bundle %s, created %s", bundle.version, bundle.scorer.manifest.created)

    def stop(self) -> None:
        """Cancel a load in progress and start no further one."""
        self._stopping.set()

    @property
    def abandoned_loads(self) -> int:
        """The number of cancelled loads that are still running."""
        return sum(job.is_alive() for job in self._abandoned)

    def _load_if_new(self, cancellation: Cancellation) -> LoadedBundle | None:
        """Load the bundle in the folder; None where it is the loaded one, unchanged."""
        settings = self.settings
        manifest = Manifest.read(settings.bundle, settings.trust)
        if manifest.sha256 != self.bundle.scorer.manifest.sha256:
            return LoadedBundle(self._loader(settings, cancellation))
        try:
            manifest.verify(digests=settings.verify, check=cancellation.check)
        except BundleError as error:
            raise _ChangedInPlace(f"{error}; replace bundles by renaming, never in place") from error
        return None

    def _run_job(self, function: Callable[[Cancellation], T], fingerprint: FolderFingerprint) -> T:
        """Run a load of a folder in a thread, until it ends or is obsolete.

        Raises:
            _LoadAbandoned: another bundle has arrived meanwhile, or the server stops.
            BundleError: the load took too long, or failed.
        """
        self._abandoned = [job for job in self._abandoned if job.is_alive()]
        if len(self._abandoned) >= _MAX_ABANDONED:
            raise BundleError(
                f"{self.settings.bundle}: {len(self._abandoned)} cancelled loads are still running; restart the server"
            )
        job = LoadJob(function)
        deadline = time.monotonic() + self.settings.load_seconds
        try:
            while not job.wait(_CHECK_INTERVAL):
                if self._stopping.is_set():
                    raise _LoadAbandoned("the server is stopping")
                if manifest_state(fingerprint_folder(self.settings.bundle)) != manifest_state(fingerprint):
                    raise _LoadAbandoned("another bundle arrived during a load")
                if time.monotonic() > deadline:
                    raise BundleError(
                        f"{self.settings.bundle}: must be loaded and give a first answer within "
                        f"{self.settings.load_seconds:g} seconds, did not; export it again, or raise --load-seconds"
                    )
        except BaseException:
            job.cancel()
            if not job.wait(self._cancel_timeout):
                self._abandoned.append(job)
            raise
        return job.result()

    def _refuse(self, fingerprint: FolderFingerprint, error: Exception) -> None:
        """Keep the loaded bundle, log why, and plan the next attempt."""
        self._fingerprint = fingerprint
        if isinstance(error, _ChangedInPlace):
            self._retry_at = math.inf
            self.metrics.count_reload("changed")
            log.error("kept bundle %s as it was loaded: %s", self.bundle.version, error)
            return
        self.metrics.count_reload("refused")
        retry = ""
        if self.settings.poll:
            delay = min(self.settings.poll * 2 ** min(self._num_failures, 30), _MAX_RETRY_DELAY)
            self._num_failures += 1
            self._retry_at = self._clock() + delay
            retry = f"; trying again in {delay:g} s"
        unexpected = None if isinstance(error, BundleError) else error
        log.error("kept bundle %s: %s%s", self.bundle.version, error, retry, exc_info=unexpected)


class _LoadAbandoned(Exception):
    """A load that became obsolete."""


class _ChangedInPlace(BundleError):
    """The files of the loaded bundle differ from its manifest."""


class BundleWatcher(threading.Thread):
    """Thread that checks the folder every ``settings.poll`` seconds, and whenever it is woken.

    Args:
        state: state whose bundle is kept up to date.
    """

    def __init__(self, state: ServerState) -> None:
        super().__init__(name="bundle-watcher", daemon=True)
        self._state = state
        self._wake = threading.Event()
        self._stopped = False

    def wake(self) -> None:
        """Check the folder now, whatever has failed before."""
        self._wake.set()

    def stop(self) -> None:
        """Stop the thread; a load in progress is cancelled."""
        self._stopped = True
        self._state.stop()
        self._wake.set()
        self.join()

    def run(self) -> None:
        """Check until stopped."""
        while True:
            # This reference keeps the previous bundle for one round: it is freed here, not by the event loop.
            bundle = self._state.bundle
            woken = self._wake.wait(self._state.settings.poll or None)
            self._wake.clear()
            if self._stopped:
                return
            try:
                self._state.reload_if_changed(force=woken)
            except Exception:
                log.exception("kept bundle %s", bundle.version)
