"""The OpenAPI description, with the id types of the bundle in use and the limits of this server."""

from __future__ import annotations

import copy
from typing import Any

from fastapi import FastAPI

from cflightning_serve.bundle.manifest import IdType, Manifest
from cflightning_serve.http.routes.v2_infer import InferRequest, models
from cflightning_serve.http.serving.loaded_bundle import LoadedBundle
from cflightning_serve.http.serving.state import ServerState
from cflightning_serve.http.settings import Limits, Settings
from cflightning_serve.scorer import Scorer

_QUESTIONS = ("Recommend", "Score", "Similar", "FoldIn", "Explain")
_IDS: dict[IdType, dict[str, Any]] = {
    "int64": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    "string": {"type": "string"},
}


def describe(app: FastAPI, state: ServerState) -> None:
    """Make an application describe itself by what it serves at the moment."""
    plain = app.openapi()  # now, since it takes a tenth of a second, for which requests would wait
    _add_infer(plain["components"]["schemas"])
    known: dict[str, dict[str, Any]] = {}  # of the bundle in use alone

    def openapi() -> dict[str, Any]:
        served = state.bundle
        if served.version not in known:
            known.clear()
            known[served.version] = _described(plain, served, state.settings)
        return known[served.version]

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend it


def _described(plain: dict[str, Any], served: LoadedBundle, settings: Settings) -> dict[str, Any]:
    """Fill in what a bundle and the settings say."""
    described = copy.deepcopy(plain)
    schemas = described["components"]["schemas"]
    manifest = served.scorer.manifest
    for name, kind in (("UserId", manifest.user_ids), ("ItemId", manifest.item_ids)):
        schemas[name] = {"title": name, **_IDS[kind]}
    schemas["Rating"] = {"title": "Rating", **_rating(manifest)}
    for name in _QUESTIONS:
        _limit(schemas[name], settings.limits)
    _name_categories(schemas["Recommend"], served.scorer)
    choices = {"model": list(models(settings.name, served.scorer)), "version": [served.version]}
    for path in described["paths"].values():
        for operation in path.values():
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "path" and parameter["name"] in choices:
                    parameter["schema"] = {"type": "string", "enum": choices[parameter["name"]]}
                elif parameter["name"] == "item":  # an address knows text alone
                    ids = {"type": "array", "items": {"$ref": "#/components/schemas/ItemId"}, "maxItems": 100}
                    parameter["schema"] = ids
    if settings.keys:
        described["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        described["security"] = [{"bearer": []}, {"key": []}]
    return described


def _add_infer(schemas: dict[str, Any]) -> None:
    """The body of infer, whose route reads it itself, so that FastAPI does not know of it."""
    schema = InferRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= schema.pop("$defs")
    schemas[InferRequest.__name__] = schema


def _rating(manifest: Manifest) -> dict[str, Any]:
    """What a rating may be: of a bundle of choices alone, a weight."""
    if manifest.rating_range is not None:
        low, high = manifest.rating_range
        return {"type": "number", "minimum": low, "maximum": high}
    if manifest.units["score"] == "choice":
        return {"type": "number", "exclusiveMinimum": 0, "maximum": 1e9}
    return {"type": "number", "minimum": -1e9, "maximum": 1e9}


def _name_categories(schema: dict[str, Any], scorer: Scorer) -> None:
    """The categories that may be asked for, which no type says."""
    if scorer.manifest.catalogue is None or not (known := list(scorer.catalogue.categories)):
        return
    for one in schema["properties"]["categories"]["anyOf"]:
        if one.get("type") == "array":
            one["items"] = {"type": "string", "enum": known}


def _limit(schema: dict[str, Any], limits: Limits) -> None:
    for name, value in schema["properties"].items():
        if name == "k":
            value["maximum"] = limits.k
        for one in (value, *value.get("anyOf", ())):
            if one.get("type") == "array":
                one["maxItems"] = limits.ids
