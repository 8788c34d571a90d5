"""The application: every route, behind one guard."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI, Response
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from cflightning_serve import __version__
from cflightning_serve.http.errors import add_exception_handlers
from cflightning_serve.http.middleware.budget import Budget
from cflightning_serve.http.middleware.fast_path import Shortcut
from cflightning_serve.http.middleware.guard import Guard
from cflightning_serve.http.openapi import describe
from cflightning_serve.http.routes import questions
from cflightning_serve.http.routes import v2 as protocol
from cflightning_serve.http.routes.v2 import HEADER_LENGTH
from cflightning_serve.http.serving.executor import Executor
from cflightning_serve.http.serving.metrics import CONTENT_TYPE
from cflightning_serve.http.serving.state import BundleWatcher, ServerState
from cflightning_serve.http.ui import routes as page


def create_app(state: ServerState, watcher: BundleWatcher | None = None, executor: Executor | None = None) -> ASGIApp:
    """Make the ASGI application.

    Args:
        state: state of the server.
        watcher: runs as long as the application; without one, the bundle is never replaced.
        executor: runs long computations.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if watcher is not None:
            watcher.start()
        yield
        if watcher is not None:
            watcher.stop()
        work.stop()

    app = FastAPI(
        title="cflightning-serve",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # the pages of FastAPI's documentation load their scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    work, budget = executor or Executor(), Budget(state.settings.limits.held)
    asked = questions.routes(state, work)
    app.include_router(asked)
    app.include_router(protocol.routes(state, work, budget))
    app.include_router(_metrics(state))
    app.include_router(page.page_router(lambda: state.bundle.scorer, work))
    add_exception_handlers(app)
    describe(app, state)
    guarded = Guard(Shortcut(app, asked), state, work, budget)
    return _shared(guarded, state.settings.origins) if state.settings.origins else guarded


def _shared(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """Let pages of other origins ask and read answers (CORS)."""
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "Content-Encoding", "Content-Type", HEADER_LENGTH, "X-API-Key"],
        expose_headers=[HEADER_LENGTH, "Retry-After"],
    )


def _metrics(state: ServerState) -> APIRouter:
    router = APIRouter(tags=["operation"])

    @router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Everything that Prometheus is told."""
        return Response(state.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    return router
