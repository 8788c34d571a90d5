"""The ASGI application: routes, and the middleware around them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from cflightning_serve import __version__
from cflightning_serve.http.errors import add_exception_handlers
from cflightning_serve.http.middleware.guard import Guard
from cflightning_serve.http.openapi import describe_app
from cflightning_serve.http.routes import route_modules
from cflightning_serve.http.routes.fast_path import FastPath
from cflightning_serve.http.routes.v2 import HEADER_LENGTH
from cflightning_serve.http.serving.state import BundleWatcher, ServerState
from cflightning_serve.http.ui import routes as ui


def create_app(state: ServerState, watcher: BundleWatcher | None = None) -> ASGIApp:
    """Make the ASGI application.

    Args:
        state: state of the server.
        watcher: runs as long as the application; without one, the bundle is never replaced.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if watcher is not None:
            watcher.start()
        yield
        if watcher is not None:
            watcher.stop()
        state.executor.stop()

    app = FastAPI(
        title="cflightning-serve",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's documentation pages load scripts from other servers
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.server = state
    modules = route_modules()
    for module in modules:
        app.include_router(module.router)
    app.include_router(ui.page_router(lambda: state.bundle.scorer, state.executor))
    add_exception_handlers(app)
    describe_app(app, state, [ui.describe, *(module.describe for module in modules if module.describe is not None)])
    guarded = Guard(FastPath(app, [module.router for module in modules], state), state)
    origins = state.settings.origins
    if not origins:
        return guarded
    return CORSMiddleware(
        guarded,
        allow_origins=origins,
        allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "Content-Encoding", "Content-Type", HEADER_LENGTH, "X-API-Key"],
        expose_headers=[HEADER_LENGTH, "Retry-After"],
    )
