"""The ASGI application: routes, and the middleware around them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from cflightning_serve import __version__
from cflightning_serve.http.errors import add_exception_handlers
from cflightning_serve.http.middleware.api_keys import ApiKeyMiddleware
from cflightning_serve.http.middleware.back_pressure import BackPressureMiddleware
from cflightning_serve.http.middleware.body import BodyMiddleware, GzipMiddleware
from cflightning_serve.http.middleware.concurrency import ConcurrencyMiddleware
from cflightning_serve.http.middleware.deadline import DeadlineMiddleware
from cflightning_serve.http.middleware.errors import ErrorMiddleware
from cflightning_serve.http.middleware.hosts import HostMiddleware
from cflightning_serve.http.middleware.metrics import MetricsMiddleware
from cflightning_serve.http.openapi import describe_app
from cflightning_serve.http.routes import RouteModule, route_modules
from cflightning_serve.http.routes.fast_path import FastPath
from cflightning_serve.http.routes.v2 import HEADER_LENGTH
from cflightning_serve.http.serving.state import BundleWatcher, ServerState
from cflightning_serve.http.ui import routes as ui

_HEALTH = "/v2/health/"
"""Path of health checks, which are answered for every host and key and under every load."""


def create_app(
    state: ServerState, watcher: BundleWatcher | None = None, more_routes: Sequence[RouteModule] = ()
) -> ASGIApp:
    """Make the ASGI application.

    Args:
        state: state of the server.
        watcher: runs as long as the application; without one, the bundle is never replaced.
        more_routes: routes besides those of the package.
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
    modules = [*route_modules(), *more_routes]
    for module in modules:
        app.include_router(module.router)
    app.include_router(ui.page_router(lambda: state.bundle.scorer, state.executor))
    add_exception_handlers(app)
    describe_app(app, state, [ui.describe, *(module.describe for module in modules if module.describe is not None)])
    handler = _add_middleware(app, FastPath(app, [module.router for module in modules], state), state)

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        await (handler if scope["type"] == "http" else app)(scope, receive, send)

    return dispatch


def _add_middleware(health: ASGIApp, app: ASGIApp, state: ServerState) -> ASGIApp:
    """Put the middleware around an application, from the inside out.

    Args:
        health: answers health checks.
        app: answers all other requests.
        state: state of the server.
    """
    limits = state.settings.limits
    app = BackPressureMiddleware(app, state.budget)
    app = GzipMiddleware(app, limits.body, state.budget, state.executor)
    app = ConcurrencyMiddleware(app, limits.concurrent)
    app = BodyMiddleware(app, limits.body, state.budget)
    app = ApiKeyMiddleware(app, state.settings.keys, limits.seconds / 2)
    admitted = HostMiddleware(app, state.settings.hosts)

    async def bypass(scope: Scope, receive: Receive, send: Send) -> None:
        await (health if scope["path"].startswith(_HEALTH) else admitted)(scope, receive, send)

    app = DeadlineMiddleware(bypass, limits.seconds)
    app = ErrorMiddleware(app)
    app = MetricsMiddleware(app, state.metrics)
    if not state.settings.origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=state.settings.origins,
        allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "Content-Encoding", "Content-Type", HEADER_LENGTH, "X-API-Key"],
        expose_headers=[HEADER_LENGTH, "Retry-After"],
    )
