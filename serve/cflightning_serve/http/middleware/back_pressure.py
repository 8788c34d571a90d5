"""Back-pressure of large responses."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cflightning_serve.http.errors import ApiError
from cflightning_serve.http.serving.memory_budget import UNCOUNTED, MemoryBudget

_PART = UNCOUNTED
"""Bytes of a part of a large response."""


class BackPressureMiddleware:
    """Sends a large response in parts, as fast as the client reads, and counts it in the memory budget meanwhile.

    Args:
        app: the application.
        budget: memory budget.
    """

    def __init__(self, app: ASGIApp, budget: MemoryBudget) -> None:
        self._app, self._budget = app, budget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward the request, and send its response in parts."""
        start: Message | None = None
        refusal: ApiError | None = None

        async def send_in_parts(message: Message) -> None:
            nonlocal start, refusal
            if message["type"] == "http.response.start":
                start = message  # sent with the first part, so that an error can replace it
                return
            body = message.get("body", b"")
            try:
                self._budget.acquire(held := len(body) if len(body) > _PART else 0)
            except ApiError as error:
                refusal = error
                raise
            try:
                if start is not None:
                    first, start = start, None
                    await send(first)
                if not held:
                    await send(message)
                    return
                more_body = message.get("more_body", False)
                for begin in range(0, len(body), _PART):
                    end = begin + _PART
                    part = {"type": message["type"], "body": body[begin:end], "more_body": more_body or end < len(body)}
                    await send(part)
            finally:
                self._budget.release(held)

        try:
            await self._app(scope, receive, send_in_parts)
        except Exception:
            if refusal is not None:  # even if the application has replaced it
                raise refusal from None
            raise
