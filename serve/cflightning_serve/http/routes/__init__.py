"""The routes, one module for each: request and response schema, handler, OpenAPI text and cost estimate.

Every module with a ``router`` is served. Its optional ``describe(document, bundle, settings)`` completes the OpenAPI
document with what depends on the loaded bundle and the settings. To add a route, add a module.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules
from typing import NamedTuple

from fastapi import APIRouter

from cflightning_serve.http.json_encoding import JsonObject
from cflightning_serve.http.serving.loaded_bundle import LoadedBundle
from cflightning_serve.http.settings import Settings

Describe = Callable[[JsonObject, LoadedBundle, Settings], None]


class RouteModule(NamedTuple):
    """A module of routes."""

    router: APIRouter
    describe: Describe | None = None


def route_modules() -> list[RouteModule]:
    """Import the modules of this package that have a router."""
    modules = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
    return [
        RouteModule(module.router, getattr(module, "describe", None)) for module in modules if hasattr(module, "router")
    ]
