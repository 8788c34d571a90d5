"""The limit of requests in progress, and fairness of the event loop."""

from __future__ import annotations

import asyncio
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cflightning_serve.http.errors import ApiError

_MAX_ITERATION = 0.01
"""Seconds that requests may take in one iteration of the event loop."""


class ConcurrencyMiddleware:
    """Refuses requests above a limit.

    A request is in progress from the end of its body to the beginning of its response's body: waiting for a client does
    not count.

    Args:
        app: the application.
        limit: requests in progress.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app, self._limit = app, limit
        self._in_progress = 0
        self._loop_share = LoopShare()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request with 503 while the limit is reached."""
        if self._in_progress >= self._limit:
            raise ApiError(503, "busy", "too many requests are in progress; try again", {"Retry-After": "1"})
        self._in_progress += 1
        counted = True

        async def send_and_leave(message: Message) -> None:
            nonlocal counted
            if counted and message["type"] == "http.response.body":
                counted = False
                self._in_progress -= 1
            await send(message)

        try:
            await self._loop_share.wait()
            await self._app(scope, receive, send_and_leave)
        finally:
            self._in_progress -= counted


class LoopShare:
    """Bounds the time that requests take in one iteration of the event loop.

    Health checks and new connections thereby wait for one iteration, however many requests are ready.
    """

    def __init__(self) -> None:
        self._ends_at: float | None = None

    async def wait(self) -> None:
        """Wait for an iteration with time left, usually not at all."""
        while self._ends_at is not None and perf_counter() > self._ends_at:
            await asyncio.sleep(0)
        if self._ends_at is None:
            self._ends_at = perf_counter() + _MAX_ITERATION
            asyncio.get_running_loop().call_soon(self._end_iteration)

    def _end_iteration(self) -> None:
        self._ends_at = None
