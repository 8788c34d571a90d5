"""Giving up the load of a bundle from another thread."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cflightning_serve.errors import BundleError


class Cancellation:
    """A request to give up a load. What loads asks :meth:`check` between its steps, and lets long steps be stopped.

    Args:
        pause: seconds that each check waits, so that a load beside a server's requests leaves them room.
    """

    def __init__(self, pause: float = 0.0) -> None:
        self._pause = pause
        self._lock = threading.Lock()
        self._stops: list[Callable[[], None]] = []
        self._cancelled = False

    def cancel(self) -> None:
        """Make the load end at its next step, and stop the step that it is at."""
        with self._lock:
            self._cancelled = True
            for stop in self._stops:
                stop()

    def check(self) -> None:
        """Make room for other threads, and raise if the load was given up.

        Raises:
            BundleError: it was.
        """
        if self._pause:
            time.sleep(self._pause)
        if self._cancelled:
            raise BundleError("loading the bundle was given up")

    @contextmanager
    def on_cancel(self, stop: Callable[[], None]) -> Iterator[None]:
        """Have ``stop`` called if the load is given up within the block."""
        self.check()
        with self._lock:
            self._stops.append(stop)
            if self._cancelled:
                stop()
        try:
            yield
        finally:
            with self._lock:
                self._stops.remove(stop)
