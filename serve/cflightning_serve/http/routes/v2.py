"""``/v2``: the Open Inference Protocol v2 (health, metadata, infer), with one model for each graph of the bundle.

The model NAME-recommend takes and returns the tensors of ``recommend.onnx`` (``BUNDLE.md``), and so on; NAME alone
recommends as well. The version of a model identifies the bundle that answered.
"""

from __future__ import annotations

import re

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict

from cflightning_serve import __version__
from cflightning_serve.http.errors import ApiError
from cflightning_serve.http.json_encoding import JsonObject
from cflightning_serve.http.routes.common import State, describe_errors
from cflightning_serve.http.routes.fast_path import INLINE_BODY
from cflightning_serve.http.routes.v2_infer import InferRequest, infer, metadata, model_graphs, parse_request
from cflightning_serve.http.serving.executor import ALWAYS_THREAD
from cflightning_serve.http.serving.loaded_bundle import LoadedBundle
from cflightning_serve.http.serving.state import ServerState
from cflightning_serve.http.settings import Settings

HEADER_LENGTH = "Inference-Header-Content-Length"
"""Header with the bytes of JSON in a body that has tensors behind it."""
_NUMBER = re.compile("[0-9]{1,15}")  # Python refuses to parse integers of thousands of digits


class ProtocolError(BaseModel):
    """Body of an error response in this protocol."""

    error: str


class Tensor(BaseModel):
    """A tensor of a response; ``data`` is missing where it follows as bytes."""

    name: str
    datatype: str
    shape: list[int]
    data: list[object] | None = None


class InferResponse(BaseModel):
    """The response to an infer request."""

    model_config = ConfigDict(protected_namespaces=())

    model_name: str
    model_version: str
    outputs: list[Tensor]


router = APIRouter(
    prefix="/v2",
    responses=describe_errors(
        ProtocolError,
        status_400="The request is none of this protocol's, or the model cannot answer it",
        status_404="There is no such model or version",
        status_422="The request has another form",
    ),
    tags=["Open Inference Protocol v2"],
)
_INFER_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{InferRequest.__name__}"}}},
    }
}
"""OpenAPI description of the body of infer, which the route parses itself."""


@router.get("")
async def server() -> JsonObject:
    """Return name, version and extensions of this server."""
    return {"name": "cflightning-serve", "version": __version__, "extensions": ["binary_tensor_data"]}


@router.head("/health/live", include_in_schema=False)
@router.get("/health/live")
async def live() -> dict[str, bool]:
    """Confirm that the process responds."""
    return {"live": True}


@router.head("/health/ready", include_in_schema=False)
@router.get("/health/ready")
async def ready() -> dict[str, bool]:
    """Confirm that a bundle is loaded, which is always so once the server listens."""
    return {"ready": True}


@router.get("/models/{model}/versions/{version}/ready")
@router.get("/models/{model}/ready")
async def model_ready(state: State, model: str, version: str | None = None) -> JsonObject:
    """Confirm that a model is available."""
    _graph_of(state, state.bundle, model, version)
    return {"name": model, "ready": True}


@router.get("/models/{model}/versions/{version}")
@router.get("/models/{model}")
async def model_metadata(state: State, model: str, version: str | None = None) -> JsonObject:
    """Return the inputs and outputs of a model."""
    bundle = state.bundle
    tensors = metadata(bundle.scorer, _graph_of(state, bundle, model, version))
    return {"name": model, "versions": [bundle.version], "platform": "onnxruntime_onnx", **tensors}


@router.post("/models/{model}/versions/{version}/infer", response_model=InferResponse, openapi_extra=_INFER_BODY)
@router.post("/models/{model}/infer", response_model=InferResponse, openapi_extra=_INFER_BODY)
async def model_infer(request: Request, state: State, model: str, version: str | None = None) -> Response:
    """Run a model; tensors are JSON, or bytes behind the JSON (Triton's binary tensor data)."""
    bundle = state.bundle
    graph = _graph_of(state, bundle, model, version)
    body = await request.body()
    length = request.headers.get(HEADER_LENGTH, str(len(body)))
    if not _NUMBER.fullmatch(length) or int(length) > len(body):
        raise ApiError(400, "input", f"{HEADER_LENGTH}: must be the bytes of JSON, up to {len(body)}, got {length}")
    view, end = memoryview(body), int(length)
    parsed = await state.executor.run(
        ALWAYS_THREAD if len(body) > INLINE_BODY else 0,
        lambda: parse_request(bundle.scorer, graph, view[:end], view[end:], state.settings.limits),
    )
    header = {"model_name": model, "model_version": bundle.version}
    if parsed.request.id is not None:
        header["id"] = parsed.request.id
    text, tensors = await infer(bundle.scorer, parsed, state.executor, state.budget, header)
    if not tensors:
        return Response(text, media_type="application/json")
    return Response(text + tensors, 200, {HEADER_LENGTH: str(len(text))}, "application/octet-stream")


def describe(document: JsonObject, bundle: LoadedBundle, settings: Settings) -> None:
    """Add the body of infer and the names of models to the OpenAPI document."""
    schema = InferRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas = document["components"]["schemas"]
    schemas |= schema.pop("$defs")
    schemas[InferRequest.__name__] = schema
    choices = {"model": list(model_graphs(settings.name, bundle.scorer)), "version": [bundle.version]}
    for path, operations in document["paths"].items():
        if path.startswith("/v2/"):
            for operation in operations.values():
                for parameter in operation.get("parameters", ()):
                    if parameter["in"] == "path":
                        parameter["schema"] = {"type": "string", "enum": choices[parameter["name"]]}


def _graph_of(state: ServerState, bundle: LoadedBundle, model: str, version: str | None) -> str:
    """Return the graph of a model.

    Raises:
        ApiError: there is no such model, or not in this version.
    """
    graphs = model_graphs(state.settings.name, bundle.scorer)
    if model not in graphs:
        raise ApiError(404, "no_such_model", f"model: must be one of {', '.join(graphs)}, got {model}")
    if version not in (None, bundle.version):
        raise ApiError(404, "no_such_version", f"version: this server has {bundle.version}, got {version}")
    return graphs[model]
