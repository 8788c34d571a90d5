"""Cancellation of a bundle load from another thread."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cflightning_serve.errors import BundleError


class Cancellation:
    """A request to stop loading, which the loader polls between its steps.

    Args:
        pause: seconds to sleep at each poll, so that a load in the background leaves time for a server's requests.
    """

    def __init__(self, pause: float = 0.0) -> None:
        self._pause = pause
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []
        self._cancelled = False

    def cancel(self) -> None:
        """Stop the load: its current step by the registered callbacks, and no further step begins."""
        with self._lock:
            self._cancelled = True
            for callback in self._callbacks:
                callback()

    def check(self) -> None:
        """Sleep for the pause, and raise if the load has been cancelled.

        Raises:
            BundleError: the load has been cancelled.
        """
        if self._pause:
            time.sleep(self._pause)
        if self._cancelled:
            raise BundleError("loading the bundle was cancelled")

    @contextmanager
    def on_cancel(self, callback: Callable[[], None]) -> Iterator[None]:
        """Call ``callback`` if the load is cancelled within the block.

        Raises:
            BundleError: the load has been cancelled before.
        """
        self.check()
        with self._lock:
            self._callbacks.append(callback)
            if self._cancelled:
                callback()
        try:
            yield
        finally:
            with self._lock:
                self._callbacks.remove(callback)
