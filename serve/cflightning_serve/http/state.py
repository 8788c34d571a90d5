"""The bundle in use, and how the next one takes its place."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from cflightning_serve import Scorer
from cflightning_serve.errors import BundleError
from cflightning_serve.http.drift import Spread
from cflightning_serve.http.metrics import BundleCollector, Metrics
from cflightning_serve.http.settings import Settings
from cflightning_serve.manifest import Manifest

log = logging.getLogger(__name__)

_REMEMBERED = 1 << 17
"""Users, some 10 MB; and items, some 20."""
encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode

Mark = tuple[tuple[str, int, int, int], ...]
"""Of a folder: name, inode, bytes and nanoseconds of last change of each file."""


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
        self._mark = _mark(settings.bundle)
        self.served = _serve(scorer or self._load())
        self.metrics.registry.register(BundleCollector(self))

    def look(self) -> None:
        """Take up the bundle in the folder if it is another one; keep the one in use where it is damaged.

        Called by one thread at a time, which is not the event loop's.
        """
        mark = _mark(self.settings.bundle)
        if mark == self._mark:
            return
        try:
            if Manifest.read(self.settings.bundle).sha256 != self.served.scorer.manifest.sha256:
                fresh = _serve(self._load())
                self.served = fresh
                self.metrics.reload("loaded")
                log.info("serving bundle %s, created %s", fresh.version, fresh.scorer.manifest.created)
        except BundleError as error:
            if mark == _mark(self.settings.bundle):  # else it is being written: look again before complaining
                self.metrics.reload("refused")
                log.error("kept bundle %s: %s", self.served.version, error)
                self._mark = mark
        else:
            self._mark = mark

    def _load(self) -> Scorer:
        settings = self.settings
        scorer = Scorer.load(
            settings.bundle,
            verify=settings.verify,
            threads=settings.threads,
            eager=True,
            mapped=settings.mapped,
            trust=settings.trust,
        )
        _warm_up(scorer)
        return scorer


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
        """Look now."""
        self._woken.set()

    def stop(self) -> None:
        """End; a look that has begun is finished first."""
        self._stopped = True
        self._woken.set()
        self.join()

    def run(self) -> None:
        """Look until stopped."""
        while True:
            # Holds the last bundle for one more round: it is freed here, not by the event loop between two requests.
            in_use = self._state.served
            self._woken.wait(self._state.settings.poll or None)
            self._woken.clear()
            if self._stopped:
                return
            try:
                self._state.look()
            except Exception:
                log.exception("kept bundle %s", in_use.version)


def _serve(scorer: Scorer) -> Served:
    manifest = scorer.manifest
    spreads = {question: Spread(reference) for question, reference in manifest.reference.items()}
    return Served(scorer, spreads, manifest.sha256[:12])


def _warm_up(scorer: Scorer) -> None:
    """Ask once: no client waits for what onnxruntime allocates first, and a graph that cannot answer is found here."""
    manifest = scorer.manifest
    user: int | str = 0 if manifest.user_ids == "int64" else ""
    best = scorer.recommend(user)
    if len(best.items):
        scorer.score(user, best.items[0])
        scorer.similar_items(best.items[0])
        scorer.titles(best.items)


def _mark(folder: Path) -> Mark:
    """Cheap enough to be taken every second; another one wherever a file was added, changed or replaced."""
    try:
        with os.scandir(folder) as entries:
            stats = [(entry.name, entry.stat()) for entry in entries]
    except OSError:
        return ()
    return tuple(sorted((name, stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in stats))
