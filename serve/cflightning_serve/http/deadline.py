"""A bound on how long a task takes: ``asyncio.timeout`` needs Python 3.11, anyio's scopes cost ten times as much."""

from __future__ import annotations

import asyncio
from types import TracebackType


class Deadline:
    """``with Deadline(seconds) as deadline:`` cancels its body, awaits and all, when the time is up.

    Args:
        seconds: from entering.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.passed = False
        """Whether the body was cut off."""

    def __enter__(self) -> Deadline:
        """Start the clock."""
        loop = asyncio.get_running_loop()
        self._task = asyncio.current_task(loop)
        self._timer = loop.call_later(self._seconds, self._cut)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Stop the clock; swallow the cancellation that it caused itself, no other."""
        self._timer.cancel()
        if not self.passed or kind is not asyncio.CancelledError:
            return False
        uncancel = getattr(self._task, "uncancel", None)  # since Python 3.11
        return uncancel is None or uncancel() == 0

    def extend(self, seconds: float) -> None:
        """Start the clock anew, with so many seconds more than before."""
        self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._seconds + seconds, self._cut)

    def _cut(self) -> None:
        self.passed = True
        if self._task is not None:
            self._task.cancel()
