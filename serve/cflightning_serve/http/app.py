"""The application: every route, behind one guard."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI, Response
from starlette.types import ASGIApp

from cflightning_serve import __version__
from cflightning_serve.http import protocol, questions
from cflightning_serve.http.errors import add_handlers
from cflightning_serve.http.guard import Guard
from cflightning_serve.http.metrics import CONTENT_TYPE
from cflightning_serve.http.openapi import describe
from cflightning_serve.http.routing import Shortcut
from cflightning_serve.http.state import State, Watcher
from cflightning_serve.http.work import Work


def create_app(state: State, watcher: Watcher | None = None) -> ASGIApp:
    """Make the ASGI application.

    Args:
        state: of the server.
        watcher: runs for as long as the application does; without one, the bundle stays.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if watcher is not None:
            watcher.start()
        yield
        if watcher is not None:
            watcher.stop()

    app = FastAPI(
        title="cflightning-serve",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # the pages of FastAPI's documentation load their scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    work = Work()
    asked = questions.routes(state, work)
    app.include_router(asked)
    app.include_router(protocol.routes(state, work))
    app.include_router(_metrics(state))
    # The page: app.include_router(page.routes(lambda: state.served.scorer))
    add_handlers(app)
    describe(app, state)
    return Guard(Shortcut(app, asked), state)


def _metrics(state: State) -> APIRouter:
    router = APIRouter(tags=["operation"])

    @router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Everything that Prometheus is told."""
        return Response(state.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    return router
