"""Direct dispatch of JSON requests to their handlers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import get_type_hints

from fastapi import APIRouter, Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from cflightning_serve.http.errors import to_api_error
from cflightning_serve.http.routes.common import RequestBody
from cflightning_serve.http.serving.executor import ALWAYS_THREAD
from cflightning_serve.http.serving.state import ServerState

INLINE_BODY = 1 << 13
"""Bytes of a body that is parsed in the event loop, in a tenth of a millisecond; longer ones are parsed in a thread."""


class FastPath:
    """ASGI application that calls the handlers of JSON routes itself and passes all other requests to FastAPI.

    FastAPI's middleware, routing and dependencies take longer than the top ten of 3,700 items. The paths of JSON routes
    have no parameters, so a dictionary finds them. Responses are the same either way.

    Args:
        app: FastAPI's application.
        routers: its routers; routes with a ``RequestBody`` are JSON routes.
        state: state of the server.
    """

    def __init__(self, app: ASGIApp, routers: Iterable[APIRouter], state: ServerState) -> None:
        self._app, self._state = app, state
        self._routes: dict[str, tuple[APIRoute, type[RequestBody]]] = {}
        for route in (route for router in routers for route in router.routes):
            if isinstance(route, APIRoute) and "POST" in (route.methods or ()):
                kind = get_type_hints(route.endpoint).get("body")
                if isinstance(kind, type) and issubclass(kind, RequestBody):
                    self._routes[route.path] = route, kind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the handler of a JSON route, or forward the request to FastAPI."""
        match = self._routes.get(scope["path"]) if scope.get("method") == "POST" else None
        if match is None:
            await self._app(scope, receive, send)
            return
        scope["route"], kind = match
        handler: Callable[[RequestBody, ServerState], Awaitable[Response]] = match[0].endpoint
        try:
            message = await receive()  # the whole body, see `middleware.body`
            if message["type"] != "http.request":
                raise ClientDisconnect
            body: bytes = message.get("body", b"")
            if len(body) <= INLINE_BODY:
                request = kind.model_validate_json(body)
            else:
                request = await self._state.executor.run(ALWAYS_THREAD, lambda: kind.model_validate_json(body))
            response = await handler(request, self._state)
        except Exception as error:
            response = to_api_error(error).response(scope["path"])
        await response(scope, receive, send)
