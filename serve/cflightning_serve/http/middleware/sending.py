"""The way of one answer to its client: large ones in pieces, as fast as they are read."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import Message, Scope, Send

from cflightning_serve.http.errors import ApiError
from cflightning_serve.http.middleware.connection import EXTENSION
from cflightning_serve.http.middleware.deadline import Deadline
from cflightning_serve.http.serving.memory_budget import MemoryBudget

PIECE = 1 << 16
"""Bytes; an answer of no more leaves in one piece and is not counted."""
SLOWEST = 1 << 17
"""Bytes a second that a client must read of a large answer."""


class Sender:
    """ASGI's ``send`` of one request. It holds the status back until there is a body, so that it can still refuse.

    Args:
        scope: of the request.
        send: of the server.
        budget: of the server.
        deadline: of the request; a large answer has more time.
        computed: called where a large answer begins to leave: the request is no longer in work.
    """

    def __init__(
        self, scope: Scope, send: Send, budget: MemoryBudget, deadline: Deadline, computed: Callable[[], None]
    ) -> None:
        self._scope, self._send = scope, send
        self._budget, self._deadline, self._computed = budget, deadline, computed
        self._start: Message | None = None
        self.status = 0
        """HTTP status of the answer; 0 as long as nothing has been sent."""
        self.refused: ApiError | None = None
        """Why an answer was not sent, whatever the application makes of the exception."""

    async def __call__(self, message: Message) -> None:
        """Send a part of the answer.

        Raises:
            ApiError: the server holds too much already; nothing has been sent.
        """
        if message["type"] == "http.response.start":
            self._start = message
            return
        if self._start is not None:
            start, self._start = self._start, None
            body = message.get("body", b"")
            if len(body) > PIECE:
                await self._send_large(start, body, message.get("more_body", False))
                return
            self.status = start["status"]
            await self._send(start)
        await self._send(message)

    async def refuse(self, refusal: ApiError) -> None:
        """Answer with an error, or end the connection where an answer has begun."""
        if self.status == 0:
            await refusal.response(self._scope["path"])(self._scope, _nothing, self)
        else:
            self._scope["extensions"][EXTENSION]["drop"]()

    async def _send_large(self, start: Message, body: bytes, more: bool) -> None:
        try:
            self._budget.acquire(len(body))
        except ApiError as refusal:
            self.refused = refusal
            raise
        try:
            self._computed()
            self._deadline.extend(len(body) / SLOWEST)
            self.status = start["status"]
            await self._send(start)
            for at in range(0, len(body), PIECE):
                end = at + PIECE
                piece = {"type": "http.response.body", "body": body[at:end], "more_body": more or end < len(body)}
                await self._send(piece)
        finally:
            self._budget.release(len(body))


async def _nothing() -> Message:
    return {"type": "http.disconnect"}
