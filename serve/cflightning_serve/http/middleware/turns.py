"""Turns in the event loop: no round of it takes long, however many requests are ready."""

from __future__ import annotations

import asyncio
from time import perf_counter

_ROUND = 0.01
"""Seconds that the requests of one round may take together."""


class Turns:
    """Bounds a round of the event loop by time, so that what may not wait (health, new connections) waits one round."""

    def __init__(self) -> None:
        self._until: float | None = None

    async def take(self) -> None:
        """Wait for a round with time left; at once, most of the time."""
        while self._until is not None and perf_counter() > self._until:
            await asyncio.sleep(0)
        if self._until is None:
            self._until = perf_counter() + _ROUND
            asyncio.get_running_loop().call_soon(self._end)

    def _end(self) -> None:
        self._until = None
