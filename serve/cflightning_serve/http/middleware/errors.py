"""Error responses to exceptions."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cflightning_serve.http.connection.connection import EXTENSION
from cflightning_serve.http.errors import to_api_error


class ErrorMiddleware:
    """Answers with an error where the application raises an exception; aborts a response that has begun.

    Args:
        app: the application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward the request, and convert an exception into an error response."""
        started = False

        async def send_and_record(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, send_and_record)
            return
        except Exception as exception:
            error = to_api_error(exception)
            error.drop_traceback()
        if not started:
            await error.response(scope["path"])(scope, receive, send)
        elif EXTENSION in scope.get("extensions", ()):
            scope["extensions"][EXTENSION].abort()
