"""Routes that read their question straight from the bytes, and the short way to them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, cast, get_type_hints

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from cflightning_serve.http.errors import ErrorReply, to_api_error
from cflightning_serve.http.serving.executor import ALWAYS_THREAD, Executor

REFUSED: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorReply, "description": "The body is no JSON, or the request no HTTP"},
    401: {"model": ErrorReply, "description": "The API key is missing or wrong"},
    413: {"model": ErrorReply, "description": "The body is too large"},
    415: {"model": ErrorReply, "description": "The body is not said to be JSON, or packed other than by gzip"},
    421: {"model": ErrorReply, "description": "The host is no name of this server"},
    422: {"model": ErrorReply, "description": "The question makes no sense, or the bundle cannot answer it"},
    429: {"model": ErrorReply, "description": "Too many wrong API keys"},
    503: {"model": ErrorReply, "description": "Too many requests, or not answered in time; try again"},
}
"""How any route of a question may refuse, for OpenAPI."""


LONG = 1 << 13
"""Bytes of a body that is parsed in a thread: shorter ones take a tenth of a millisecond."""


class QuestionRoute(APIRoute):
    """A route with one argument, the body's model, and a finished ``Response``; described as any other of FastAPI's."""

    work: Executor
    """Where long bodies are parsed."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Make the function from a request to its answer."""
        ask = self.asker()

        async def handle(request: Request) -> Response:
            return await ask(await request.body())

        return handle

    def asker(self) -> Callable[[bytes], Awaitable[Response]]:
        """Make the function from a body to its answer."""
        answer = cast(Callable[[BaseModel], Awaitable[Response]], self.endpoint)
        (model,) = (kind for name, kind in get_type_hints(answer).items() if name != "return")
        work = self.work

        async def ask(body: bytes) -> Response:
            if len(body) <= LONG:
                return await answer(model.model_validate_json(body))
            return await answer(await work.run(ALWAYS_THREAD, lambda: model.model_validate_json(body)))

        return ask


def question_route(work: Executor) -> type[QuestionRoute]:
    """Make the class of a server's routes of questions."""
    return type("QuestionRoute", (QuestionRoute,), {"work": work})


class Shortcut:
    """ASGI: questions go to their function at once, everything else to FastAPI.

    FastAPI's middleware and its search for a route cost more than the top ten of 3,700 items; the paths of questions
    have no parameters, so that a dictionary finds them. The answers are the same either way.

    Args:
        app: FastAPI's.
        router: with the routes of questions.
    """

    def __init__(self, app: ASGIApp, router: APIRouter) -> None:
        self._app = app
        self._handlers = {
            route.path: (route, route.asker()) for route in router.routes if isinstance(route, QuestionRoute)
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on."""
        found = self._handlers.get(scope["path"]) if scope.get("method") == "POST" else None
        if found is None:
            await self._app(scope, receive, send)
            return
        scope["route"], ask = found
        try:
            response = await ask(await _read(receive))
        except Exception as error:
            response = to_api_error(error).response(scope["path"])
        await response(scope, receive, send)


async def _read(receive: Receive) -> bytes:
    message = await receive()  # the guard has waited for the whole body
    if message["type"] != "http.request":
        raise ClientDisconnect
    body: bytes = message.get("body", b"")
    return body
