"""``GET /metrics``: metrics for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Response

from cflightning_serve.http.routes.common import State
from cflightning_serve.http.serving.metrics import CONTENT_TYPE

router = APIRouter(tags=["operation"])


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(state: State) -> Response:
    """Return all metrics in Prometheus' text format."""
    return Response(state.metrics.text(), headers={"Content-Type": CONTENT_TYPE})
