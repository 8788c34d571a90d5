"""The page at ``/``: its files, and what it asks for beside the routes that everybody uses.

Nothing of it comes from elsewhere: the files lie in ``static``, and its Content-Security-Policy lets a browser ask no
other server and run no other script.
"""

from collections.abc import Callable
from hashlib import sha256
from importlib.resources import files
from typing import Annotated, Literal

from fastapi import APIRouter, HTTPException, Query, Request, Response
from pydantic import BaseModel

from cflightning_serve.bundle.manifest import IdType, Unit
from cflightning_serve.http.middleware.fast_path import REFUSED
from cflightning_serve.http.serving.bundle import encode
from cflightning_serve.http.serving.executor import LARGE, Work
from cflightning_serve.http.ui.catalogue import Latest, parse_ids
from cflightning_serve.scorer import Scorer

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # ask each time; the answer is 304 while the file is the same
}


class About(BaseModel):
    """What the page must know of the bundle to speak of it."""

    items: int
    """Known items."""
    what: Literal["film", "item"]
    item_ids: IdType
    titles: bool
    rating_range: list[float] | None
    unit: Unit
    """Of the recommendations' scores."""


class Found(BaseModel):
    """One item of the catalogue."""

    item: int | str
    title: str | None
    count: int | None


class Finds(BaseModel):
    """The items that a query finds, best first."""

    items: list[Found]


class Mapped(Found):
    """One item on the map."""

    x: float
    y: float


class Map(BaseModel):
    """Items on the plane of the two principal components of the item vectors."""

    items: list[Mapped]


def routes(get_scorer: Callable[[], Scorer], work: Work) -> APIRouter:
    """Make the routes of the page.

    ``/`` and ``/static/`` hold nothing of the bundle. The others raise the errors of ``cflightning_serve.errors``.

    Args:
        get_scorer: returns the scorer in use; called once for each request.
        work: where the catalogue is read and searched.
    """
    router = APIRouter(responses=REFUSED, tags=["page"])
    latest = Latest()
    static = _read_static()

    def send(name: str, request: Request) -> Response:
        if name not in static:
            raise HTTPException(404, "Not Found")
        kind, body, tag = static[name]
        headers = _HEADERS | {"ETag": tag}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(body, media_type=kind, headers=headers)

    async def answer(ask: Callable[[], BaseModel]) -> Response:
        text = await work.run(LARGE, lambda: encode(ask().model_dump(mode="json")))
        return Response(text.encode(errors="replace"), media_type="application/json")

    @router.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def page(request: Request) -> Response:
        return send("index.html", request)

    @router.api_route("/static/{name}", methods=["GET", "HEAD"], include_in_schema=False)
    async def file(name: str, request: Request) -> Response:
        return send(name, request)

    @router.get("/about", summary="What kind of answers the bundle gives", response_model=About)
    async def about() -> Response:
        scorer = get_scorer()
        manifest = scorer.manifest

        def tell() -> About:
            return About(
                items=manifest.num_items - 1,
                what="film" if latest.of(scorer).films else "item",
                item_ids=manifest.item_ids,
                titles=manifest.titles is not None,
                rating_range=None if manifest.rating_range is None else list(manifest.rating_range),
                unit=manifest.units["recommend"],
            )

        return await answer(tell)

    @router.get("/items", summary="Find items by a part of their title, the most rated first", response_model=Finds)
    async def items(
        query: Annotated[str, Query(max_length=200, description="none: the most rated items")] = "",
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
    ) -> Response:
        scorer = get_scorer()
        return await answer(lambda: Finds(items=[Found(**vars(one)) for one in latest.of(scorer).find(query, limit)]))

    @router.get("/map", summary="Items on two principal components of the item vectors", response_model=Map)
    async def mapped(
        item: Annotated[list[str] | None, Query(max_length=100, description="none: the most rated items")] = None,
    ) -> Response:
        scorer = get_scorer()

        def place() -> Map:
            asked = None if item is None else parse_ids(item, scorer.manifest.item_ids)
            return Map(items=[Mapped(**vars(one)) for one in latest.of(scorer).places(scorer, asked)])

        return await answer(place)

    return router


def _read_static() -> dict[str, tuple[str, bytes, str]]:
    """Name -> type, content and tag of every file of the page; few and small, so they are kept."""
    static = {}
    for file in files("cflightning_serve.http").joinpath("static").iterdir():
        kind = _TYPES.get(file.name.rpartition(".")[2])
        if kind is not None:
            body = file.read_bytes()
            static[file.name] = kind, body, f'"{sha256(body).hexdigest()[:20]}"'
    return static
