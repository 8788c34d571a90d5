"""The deadline of a request."""

from __future__ import annotations

import asyncio
from types import TracebackType

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cflightning_serve.http.connection.connection import EXTENSION
from cflightning_serve.http.errors import ApiError

MIN_READ_RATE = 1 << 17
"""Bytes per second that a client must read of a large response."""


class DeadlineMiddleware:
    """Cancels a request at its deadline, or when its client disconnects.

    A large response, which is sent in several parts, gets additional time in proportion to its length.

    Args:
        app: the application.
        seconds: deadline in seconds.
    """

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self._app, self._seconds = app, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward the request, and cancel it at its deadline."""
        deadline = Deadline(self._seconds)
        start: Message = {}

        async def send_and_extend(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
            elif start and message.get("more_body", False):
                length = dict(start["headers"]).get(b"content-length", b"0")
                deadline.extend(int(length) / MIN_READ_RATE)
                start = {}
            await send(message)

        if EXTENSION in scope.get("extensions", ()):
            scope["extensions"][EXTENSION].on_disconnect = deadline.cancel
        with deadline:
            await self._app(scope, receive, send_and_extend)
        if deadline.has_passed:
            # The connection is closed, since the rest of a late body must not be waited for.
            headers = {"Retry-After": "1", "Connection": "close"}
            raise ApiError(503, "time", f"not answered within {self._seconds:g} seconds", headers)


class Deadline:
    """Context manager that cancels its body at a deadline; ``asyncio.timeout`` takes twice as long.

    Args:
        seconds: from entering.

    Attributes:
        has_passed: whether the deadline has cancelled the body.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._task: asyncio.Task[object] | None = None
        self._cancelled = False
        self.has_passed = False

    def __enter__(self) -> Deadline:
        """Start the clock."""
        loop = asyncio.get_running_loop()
        self._task = asyncio.current_task(loop)
        self._timer = loop.call_later(self._seconds, self._pass)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Stop the clock, and suppress the cancellation that it has caused."""
        self._timer.cancel()
        task, self._task = self._task, None
        if not self._cancelled or kind is not asyncio.CancelledError or task is None:
            return False
        return task.uncancel() == 0

    def extend(self, seconds: float) -> None:
        """Restart the clock with additional seconds."""
        self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._seconds + seconds, self._pass)

    def cancel(self) -> None:
        """Cancel the body now, if it has not ended."""
        if self._task is not None and not self._cancelled:
            self._cancelled = True
            self._task.cancel()

    def _pass(self) -> None:
        self.has_passed = True
        self.cancel()
