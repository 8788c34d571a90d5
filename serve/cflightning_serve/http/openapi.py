"""The OpenAPI document, with the id types of the loaded bundle and the limits of the server."""

from __future__ import annotations

import copy

from fastapi import FastAPI

from cflightning_serve.bundle.manifest import IdType, Manifest
from cflightning_serve.http.json_encoding import JsonObject
from cflightning_serve.http.routes import Describe
from cflightning_serve.http.routes.common import RequestBody
from cflightning_serve.http.serving.state import ServerState
from cflightning_serve.http.settings import Limits, Settings

_ID_SCHEMAS: dict[IdType, JsonObject] = {
    "int64": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    "string": {"type": "string"},
}


def describe_app(app: FastAPI, state: ServerState, describe_routes: list[Describe]) -> None:
    """Make an application's OpenAPI document follow the loaded bundle.

    Args:
        app: the application, with all routes.
        state: state of the server.
        describe_routes: functions that complete the document for their routes.
    """
    template = app.openapi()  # takes a tenth of a second, so not during a request
    documents: dict[str, JsonObject] = {}  # version -> document, of the loaded bundle alone

    def openapi() -> JsonObject:
        bundle = state.bundle
        if bundle.version not in documents:
            documents.clear()
            document = copy.deepcopy(template)
            _describe_fields(document, bundle.scorer.manifest, state.settings)
            for describe in describe_routes:
                describe(document, bundle, state.settings)
            documents[bundle.version] = document
        return documents[bundle.version]

    app.openapi = openapi  # type: ignore[method-assign]  # the documented way to extend it


def _describe_fields(document: JsonObject, manifest: Manifest, settings: Settings) -> None:
    """Fill in the types of ids and ratings, limits of request bodies, and API keys."""
    schemas = document["components"]["schemas"]
    for name, kind in (("UserId", manifest.user_ids), ("ItemId", manifest.item_ids)):
        schemas[name] = {"title": name, **_ID_SCHEMAS[kind]}
    schemas["Rating"] = {"title": "Rating", **_rating_schema(manifest)}
    for body in RequestBody.__subclasses__():
        if body.__name__ in schemas:
            _add_limits(schemas[body.__name__], settings.limits)
    if settings.keys:
        document["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        document["security"] = [{"bearer": []}, {"key": []}]


def _rating_schema(manifest: Manifest) -> JsonObject:
    """Return the schema of a rating; in a bundle of implicit feedback it is a weight."""
    if manifest.rating_range is not None:
        low, high = manifest.rating_range
        return {"type": "number", "minimum": low, "maximum": high}
    if manifest.units["score"] == "choice":
        return {"type": "number", "exclusiveMinimum": 0, "maximum": 1e9}
    return {"type": "number", "minimum": -1e9, "maximum": 1e9}


def _add_limits(schema: JsonObject, limits: Limits) -> None:
    for name, field in schema["properties"].items():
        if name == "k":
            field["maximum"] = limits.k
        for alternative in (field, *field.get("anyOf", ())):
            if alternative.get("type") == "array":
                alternative["maxItems"] = limits.ids
