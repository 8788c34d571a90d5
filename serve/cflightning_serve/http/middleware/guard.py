"""What every request passes first: who asks, how much, for how long; and what is counted of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cflightning_serve.http.api_keys import WrongKeyThrottle
from cflightning_serve.http.errors import ApiError, to_api_error
from cflightning_serve.http.middleware.body import Body, has_body, is_packed, refuse_body, unpack
from cflightning_serve.http.middleware.connection import EXTENSION
from cflightning_serve.http.middleware.deadline import Deadline
from cflightning_serve.http.middleware.hosts import Hosts
from cflightning_serve.http.middleware.sending import Sender
from cflightning_serve.http.middleware.turns import Turns
from cflightning_serve.http.serving.executor import ALWAYS_THREAD
from cflightning_serve.http.serving.state import ServerState

HEALTH = "/v2/health/"
OPEN = (HEALTH, "/static/")
"""Beginnings of paths that need no key: a platform must see the health, a page asks for its key."""


class Guard:
    """ASGI middleware, the outermost one.

    A request is in work from the last byte of its body to the first of its answer: waiting for a client is no work.

    Args:
        app: what answers.
        state: of the server.
    """

    def __init__(self, app: ASGIApp, state: ServerState) -> None:
        self._app = app
        self._keys = state.settings.keys
        self._limits = state.settings.limits
        self._metrics = state.metrics
        self._hosts = Hosts(state.settings.hosts)
        self._wrong = WrongKeyThrottle()
        self._turns = Turns()
        self._work, self._budget = state.executor, state.budget
        self._in_work = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or refuse one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = perf_counter()
        working = False

        def computed() -> None:
            nonlocal working
            self._in_work -= working
            working = False

        deadline = Deadline(self._limits.seconds)
        sender = Sender(scope, send, self._budget, deadline, computed)
        body = Body(receive, self._limits.body, self._budget)
        refusal: ApiError | None = None
        if EXTENSION in scope.get("extensions", ()):
            scope["extensions"][EXTENSION]["lost"] = deadline.cut  # nobody waits: what has not begun is not computed
        try:
            with deadline:
                try:
                    if scope["path"].startswith(HEALTH):  # whoever asks, however busy the server is
                        await self._app(scope, receive, sender)
                    else:
                        receive = await self._admit(scope, receive, body)
                        self._in_work += 1
                        working = True
                        await self._turns.take()
                        await self._app(scope, receive, sender)
                except Exception as error:
                    refusal = sender.refused or to_api_error(error)
                    refusal.drop_traceback()
            if deadline.passed:
                # What is left of a body that did not come in time is not waited for.
                headers = {"Retry-After": "1", "Connection": "close"}
                refusal = ApiError(503, "time", f"not answered within {self._limits.seconds:g} seconds", headers)
            if refusal is not None:
                await sender.refuse(refusal)
        finally:
            computed()
            body.give_back()
            # Paths that are no route's share one label: strangers must not make up labels.
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.count_request(route, sender.status, perf_counter() - began)

    async def _admit(self, scope: Scope, receive: Receive, body: Body) -> Receive:
        """Check a request and wait for its body.

        Returns:
            What gives the body to the application.

        Raises:
            ApiError: the request is not answered.
        """
        refusal = self._hosts.refuse(scope)
        if refusal is not None:
            raise refusal
        headers = dict(scope["headers"])
        path = scope["path"]
        if self._keys and path != "/" and not path.startswith(OPEN):
            await self._check_key(scope, headers)
        read: bytes | None = None
        if has_body(headers):
            refusal = refuse_body(headers, self._limits.body)
            if refusal is not None:
                raise refusal
            read = await body.read()
        self._refuse_if_busy()
        if read is None:
            return receive
        if is_packed(headers):
            packed = read
            read = await self._work.run(ALWAYS_THREAD, lambda: unpack(packed, self._limits.body))
            body.grow(len(read))
            self._refuse_if_busy()  # others have been unpacked meanwhile
        return _replay(read, receive)

    def _refuse_if_busy(self) -> None:
        # A platform ends a server that does not say that it lives: to be busy is no reason.
        if self._in_work >= self._limits.concurrent:
            raise ApiError(503, "busy", "too many requests are in work; try again", {"Retry-After": "1"})

    async def _check_key(self, scope: Scope, headers: Mapping[bytes, bytes]) -> None:
        given = headers.get(b"x-api-key")
        if given is None:
            scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
            if scheme.lower() != b"bearer":
                given = b""
        if self._keys.accepts(given):
            return
        if given.strip():
            client = (scope.get("client") or ("",))[0]
            seconds = self._wrong.record(client)
            if seconds is None:
                again = {"Retry-After": "1", "Connection": "close"}
                raise ApiError(429, "key", "too many wrong API keys; try again", again)
            if seconds > 0:
                self._wrong.add_delayed(client, 1)
                try:
                    await asyncio.sleep(min(seconds, self._limits.seconds / 2))
                finally:
                    self._wrong.add_delayed(client, -1)
        raise ApiError(
            401,
            "key",
            "needs an API key: Authorization: Bearer KEY, or X-API-Key: KEY",
            {"WWW-Authenticate": "Bearer"},
        )


def _replay(body: bytes, receive: Receive) -> Receive:
    """Give a body that has been read once more, and then what follows it."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
