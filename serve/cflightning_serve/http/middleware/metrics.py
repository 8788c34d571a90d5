"""Metrics of requests."""

from __future__ import annotations

from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cflightning_serve.http.serving.metrics import Metrics


class MetricsMiddleware:
    """Counts requests by route and status, and measures their latency.

    Args:
        app: the application.
        metrics: metrics of the server.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward the request, then count it and its latency."""
        began, status = perf_counter(), 0

        async def send_and_record(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_record)
        finally:
            # Paths without a route share one label, so that clients cannot create labels.
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.count_request(route, status, perf_counter() - began)
