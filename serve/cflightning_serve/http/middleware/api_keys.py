"""The check of API keys."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Receive, Scope, Send

from cflightning_serve.http.api_keys import ApiKeys, WrongKeyThrottle
from cflightning_serve.http.errors import ApiError


class ApiKeyMiddleware:
    """Requires an API key; the page and its files are exempt, since the page requests the key from its user.

    Args:
        app: the application.
        keys: the keys of the server.
        max_delay: seconds of the longest delay of a response to a wrong key.
    """

    def __init__(self, app: ASGIApp, keys: ApiKeys, max_delay: float) -> None:
        self._app, self._keys, self._max_delay = app, keys, max_delay
        self._throttle = WrongKeyThrottle()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request unless it has a valid key."""
        path = scope["path"]
        if self._keys and path != "/" and not path.startswith("/static/"):
            await self._check(scope)
        await self._app(scope, receive, send)

    async def _check(self, scope: Scope) -> None:
        """Raise ``ApiError`` unless the request has a valid key, after a delay for wrong keys."""
        headers = dict(scope["headers"])
        key = headers.get(b"x-api-key")
        if key is None:
            scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
            if scheme.lower() != b"bearer":
                key = b""
        if self._keys.accepts(key):
            return
        if key.strip():
            client = (scope.get("client") or ("",))[0]
            delay = self._throttle.record(client)
            if delay is None:
                headers = {"Retry-After": "1", "Connection": "close"}
                raise ApiError(429, "key", "too many wrong API keys; try again", headers)
            if delay > 0:
                self._throttle.add_delayed(client, 1)
                try:
                    await asyncio.sleep(min(delay, self._max_delay))
                finally:
                    self._throttle.add_delayed(client, -1)
        raise ApiError(
            401,
            "key",
            "needs an API key: Authorization: Bearer KEY, or X-API-Key: KEY",
            {"WWW-Authenticate": "Bearer"},
        )
