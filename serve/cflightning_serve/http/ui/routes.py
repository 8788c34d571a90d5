"""Routes of the page at ``/``: its files, and its own requests besides the JSON routes.

Everything comes from this server: the files are in ``static``, and the Content-Security-Policy forbids requests to
other servers and other scripts.
"""

from collections.abc import Callable
from hashlib import sha256
from importlib.resources import files
from typing import Annotated, Literal, NamedTuple

from fastapi import APIRouter, HTTPException, Query, Request, Response
from pydantic import BaseModel

from cflightning_serve.bundle.ids import parse_id_texts
from cflightning_serve.bundle.manifest import IdType, Unit
from cflightning_serve.http.json_encoding import JsonObject, encode_json
from cflightning_serve.http.routes.common import ERRORS
from cflightning_serve.http.serving.executor import ALWAYS_THREAD, Executor
from cflightning_serve.http.serving.loaded_bundle import LoadedBundle
from cflightning_serve.http.settings import Settings
from cflightning_serve.http.ui.catalogue import MAP_ITEMS, CatalogueCache, CatalogueItem, MapPoint
from cflightning_serve.scorer import Scorer

_MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_MAX_MAP_IDS = 100
"""Ids in the query of ``/map``."""
_HEADERS = {
    "Content-Security-Policy": _SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # validate each time; the response is 304 while the file is the same
}


class About(BaseModel):
    """Properties of the bundle that the page needs for its texts; the unit is that of recommendation scores."""

    items: int
    what: Literal["film", "item"]
    item_ids: IdType
    titles: bool
    rating_range: list[float] | None
    unit: Unit


class FoundItems(BaseModel):
    """The items that match a query, best first."""

    items: list[CatalogueItem]


class ItemMap(BaseModel):
    """Items on the plane of the two principal components of the item vectors."""

    items: list[MapPoint]


class _StaticFile(NamedTuple):
    media_type: str
    content: bytes
    etag: str


def page_router(get_scorer: Callable[[], Scorer], executor: Executor, map_items: int = MAP_ITEMS) -> APIRouter:
    """Make the routes of the page.

    ``/`` and ``/static/`` reveal nothing of the bundle. The others raise the errors of ``cflightning_serve.errors``.

    Args:
        get_scorer: returns the scorer in use; called once for each request.
        executor: runs searches of the catalogue.
        map_items: number of items on the map.
    """
    router = APIRouter(responses=ERRORS, tags=["page"])
    cache = CatalogueCache(map_items)
    static = _read_static_files()

    def static_response(name: str, request: Request) -> Response:
        if name not in static:
            raise HTTPException(404, "Not Found")
        file = static[name]
        headers = _HEADERS | {"ETag": file.etag}
        if request.headers.get("if-none-match") == file.etag:
            return Response(status_code=304, headers=headers)
        return Response(file.content, media_type=file.media_type, headers=headers)

    async def json_response(compute: Callable[[], BaseModel]) -> Response:
        text = await executor.run(ALWAYS_THREAD, lambda: encode_json(compute().model_dump(mode="json")))
        return Response(text.encode(errors="replace"), media_type="application/json")

    @router.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def page(request: Request) -> Response:
        return static_response("index.html", request)

    @router.api_route("/static/{name}", methods=["GET", "HEAD"], include_in_schema=False)
    async def file(name: str, request: Request) -> Response:
        return static_response(name, request)

    @router.get("/about", summary="Properties of the bundle", response_model=About)
    async def about() -> Response:
        scorer = get_scorer()
        manifest = scorer.manifest
        return await json_response(
            lambda: About(
                items=manifest.num_items - 1,
                what="film" if cache.get(scorer).is_of_films else "item",
                item_ids=manifest.item_ids,
                titles=manifest.titles is not None,
                rating_range=None if manifest.rating_range is None else list(manifest.rating_range),
                unit=manifest.units["recommend"],
            )
        )

    @router.get(
        "/items", summary="Find items by a part of their title, the most popular first", response_model=FoundItems
    )
    async def items(
        query: Annotated[str, Query(max_length=200, description="empty: the most popular items")] = "",
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
    ) -> Response:
        scorer = get_scorer()
        return await json_response(lambda: FoundItems(items=cache.get(scorer).search(query, limit)))

    @router.get("/map", summary="Items on two principal components of the item vectors", response_model=ItemMap)
    async def item_map(
        item: Annotated[
            list[str] | None, Query(max_length=_MAX_MAP_IDS, description="empty: the most popular items")
        ] = None,
    ) -> Response:
        scorer = get_scorer()

        def compute() -> ItemMap:
            ids = None if item is None else parse_id_texts(item, scorer.manifest.item_ids, "item")
            return ItemMap(items=cache.get(scorer).map_points(scorer, ids))

        return await json_response(compute)

    return router


def describe(document: JsonObject, _: LoadedBundle, __: Settings) -> None:
    """Add the type of ids in the query of ``/map`` to the OpenAPI document; in a URL they are text."""
    for parameter in document["paths"]["/map"]["get"]["parameters"]:
        if parameter["name"] == "item":
            ids = {"$ref": "#/components/schemas/ItemId"}
            parameter["schema"] = {"type": "array", "items": ids, "maxItems": _MAX_MAP_IDS}


def _read_static_files() -> dict[str, _StaticFile]:
    """Read the few small files of the page: name -> file."""
    static = {}
    for file in files("cflightning_serve.http.ui").joinpath("static").iterdir():
        media_type = _MEDIA_TYPES.get(file.name.rpartition(".")[2])
        if media_type is not None:
            content = file.read_bytes()
            static[file.name] = _StaticFile(media_type, content, f'"{sha256(content).hexdigest()[:20]}"')
    return static
