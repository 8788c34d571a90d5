"""What every request passes first: who asks, how much, for how long; and what is counted of it."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cflightning_serve.http.deadline import Deadline
from cflightning_serve.http.errors import Refusal, as_refusal
from cflightning_serve.http.state import State

HEALTH = "/v2/health/"
OPEN = (HEALTH, "/static/")
"""Beginnings of paths that need no key: a platform must see the health, a page asks for its key."""


class Guard:
    """ASGI middleware, the outermost one.

    Args:
        app: what answers.
        state: of the server.
    """

    def __init__(self, app: ASGIApp, state: State) -> None:
        self._app = app
        self._keys = state.settings.keys
        self._limits = state.settings.limits
        self._metrics = state.metrics
        self._in_work = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or refuse one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = perf_counter(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._in_work += 1
        try:
            refusal = self._refuse(scope)
            if refusal is None:
                with Deadline(self._limits.seconds) as deadline:
                    try:
                        await self._app(scope, self._counting(scope, receive), sending)
                    except Exception as error:
                        if status == 0:
                            refusal = as_refusal(error)
                if deadline.passed:
                    # What is left of a body that did not come in time is not waited for.
                    headers = {"Retry-After": "1", "Connection": "close"}
                    refusal = Refusal(503, "time", f"not answered within {self._limits.seconds:g} seconds", headers)
            if refusal is not None and status == 0:
                await refusal.response(scope["path"])(scope, receive, sending)
        finally:
            self._in_work -= 1
            # Paths that are no route's share one label: strangers must not make up labels.
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.request(route, status, perf_counter() - began)

    def _refuse(self, scope: Scope) -> Refusal | None:
        path = scope["path"]
        # A platform ends what does not say that it lives: to be busy is no reason.
        if self._in_work > self._limits.concurrent and not path.startswith(HEALTH):
            return Refusal(503, "busy", "too many requests are in work; try again", {"Retry-After": "1"})
        if self._keys and path != "/" and not path.startswith(OPEN) and not self._knows(scope["headers"]):
            return Refusal(
                401,
                "key",
                "needs an API key: Authorization: Bearer KEY, or X-API-Key: KEY",
                {"WWW-Authenticate": "Bearer"},
            )
        length = _header(scope["headers"], b"content-length")
        if length is not None and (not length.isdigit() or int(length) > self._limits.body):
            return self._too_large()
        return None

    def _knows(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        given = _header(headers, b"x-api-key")
        if given is None:
            scheme, _, given = (_header(headers, b"authorization") or b"").partition(b" ")
            if scheme.lower() != b"bearer":
                return False
        digest = hashlib.sha256(given.strip()).digest()
        # Every key is compared, to its last byte: how long it takes tells nothing.
        return sum(hmac.compare_digest(digest, key) for key in self._keys) > 0

    def _counting(self, scope: Scope, receive: Receive) -> Receive:
        """Refuse a body that grows beyond the limit; one of a stated length cannot."""
        if _header(scope["headers"], b"content-length") is not None:
            return receive
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._limits.body:
                raise self._too_large()
            return message

        return counted

    def _too_large(self) -> Refusal:
        return Refusal(
            413, "too_large", f"the body must not exceed {self._limits.body:,} bytes", {"Connection": "close"}
        )


def _header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    return next((value for key, value in headers if key == name), None)
