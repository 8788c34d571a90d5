"""The Open Inference Protocol v2: health, metadata and infer, one model for each graph of the bundle.

The model NAME-recommend takes and returns what ``recommend.onnx`` does (``BUNDLE.md``), and so on; NAME alone
recommends, too. The version of a model says which bundle answered.
"""

from __future__ import annotations

import re
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict

from cflightning_serve import __version__
from cflightning_serve.http.errors import ApiError
from cflightning_serve.http.middleware.budget import Budget
from cflightning_serve.http.middleware.fast_path import LONG
from cflightning_serve.http.routes.v2_infer import InferRequest, infer, metadata, models, read
from cflightning_serve.http.serving.executor import ALWAYS_THREAD, Executor
from cflightning_serve.http.serving.loaded_bundle import LoadedBundle
from cflightning_serve.http.serving.state import ServerState

HEADER_LENGTH = "Inference-Header-Content-Length"
_NUMBER = re.compile("[0-9]{1,15}")  # Python does not read numbers of thousands of digits


class ProtocolError(BaseModel):
    """How this protocol says why not."""

    error: str


class Tensor(BaseModel):
    """A tensor of an answer; its data is missing where it follows as bytes."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any] | None = None


class InferReply(BaseModel):
    """An answer to infer."""

    model_config = ConfigDict(protected_namespaces=())

    model_name: str
    model_version: str
    outputs: list[Tensor]


_REFUSED: dict[int | str, dict[str, Any]] = {
    status: {"model": ProtocolError, "description": reason}
    for status, reason in {
        400: "The request is none of this protocol's, or the model cannot answer it",
        401: "The API key is missing or wrong",
        404: "There is no such model or version",
        413: "The body is too large",
        415: "The body is not said to be JSON, or packed other than by gzip",
        421: "The host is no name of this server",
        422: "The request has another form",
        429: "Too many wrong API keys",
        503: "Too many requests, or not answered in time; try again",
    }.items()
}

_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{InferRequest.__name__}"}}},
    }
}
"""What OpenAPI says of the body, which the route reads itself."""


def routes(state: ServerState, work: Executor, budget: Budget) -> APIRouter:
    """Make the routes.

    Args:
        state: of the server.
        work: where large questions are answered.
        budget: of the server.
    """
    router = APIRouter(prefix="/v2", responses=_REFUSED, tags=["Open Inference Protocol v2"])

    def question(served: LoadedBundle, model: str, version: str | None) -> str:
        """Which graph a model is.

        Raises:
            ApiError: there is no such model, or not of this version.
        """
        known = models(state.settings.name, served.scorer)
        if model not in known:
            raise ApiError(404, "no_such_model", f"model: must be one of {', '.join(known)}, got {model}")
        if version not in (None, served.version):
            raise ApiError(404, "no_such_version", f"version: this server has {served.version}, got {version}")
        return known[model]

    @router.get("")
    async def server() -> dict[str, Any]:
        """Say what this server is."""
        return {"name": "cflightning-serve", "version": __version__, "extensions": ["binary_tensor_data"]}

    @router.head("/health/live", include_in_schema=False)
    @router.get("/health/live")
    async def live() -> dict[str, bool]:
        """Say that the process answers."""
        return {"live": True}

    @router.head("/health/ready", include_in_schema=False)
    @router.get("/health/ready")
    async def ready() -> dict[str, bool]:
        """Say that a bundle is loaded: always so, once the server listens."""
        return {"ready": True}

    @router.get("/models/{model}/versions/{version}/ready")
    @router.get("/models/{model}/ready")
    async def model_ready(model: str, version: str | None = None) -> dict[str, Any]:
        """Say that a model can be asked."""
        question(state.bundle, model, version)
        return {"name": model, "ready": True}

    @router.get("/models/{model}/versions/{version}")
    @router.get("/models/{model}")
    async def model_metadata(model: str, version: str | None = None) -> dict[str, Any]:
        """Say what a model takes and returns."""
        served = state.bundle
        sides = metadata(served.scorer, question(served, model, version))
        return {"name": model, "versions": [served.version], "platform": "onnxruntime_onnx", **sides}

    @router.post("/models/{model}/versions/{version}/infer", response_model=InferReply, openapi_extra=_BODY)
    @router.post("/models/{model}/infer", response_model=InferReply, openapi_extra=_BODY)
    async def model_infer(request: Request, model: str, version: str | None = None) -> Response:
        """Ask a model; tensors as JSON, or as bytes behind it (Triton's binary tensor data)."""
        served = state.bundle
        asked = question(served, model, version)
        body = await request.body()
        length = request.headers.get(HEADER_LENGTH, str(len(body)))
        if not _NUMBER.fullmatch(length) or int(length) > len(body):
            raise ApiError(400, "input", f"{HEADER_LENGTH}: must be the bytes of JSON, up to {len(body)}, got {length}")
        whole, end = memoryview(body), int(length)
        parsed = await work.run(
            ALWAYS_THREAD if len(body) > LONG else 0,
            lambda: read(served.scorer, asked, whole[:end], whole[end:], state.settings.limits),
        )
        about = {"model_name": model, "model_version": served.version}
        if parsed.request.id is not None:
            about["id"] = parsed.request.id
        text, tail = await infer(served.scorer, parsed, work, budget, about)
        if not tail:
            return Response(text, media_type="application/json")
        return Response(text + tail, 200, {HEADER_LENGTH: str(len(text))}, "application/octet-stream")

    return router
