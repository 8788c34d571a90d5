"""A route is one module: it is served, limited and described without changes elsewhere."""

import pytest
from fastapi import APIRouter, Response

from cflightning_serve.http.routes import RouteModule, route_modules
from cflightning_serve.http.routes.common import ERRORS, ItemId, Many, RequestBody, State, json_response
from cflightning_serve.http.serving.state import ServerState
from cflightning_serve.http.settings import Limits, Settings

router = APIRouter(responses=ERRORS)


class Titles(RequestBody):
    """Items whose titles are requested."""

    items: Many[ItemId]


@router.post("/titles")
async def titles(body: Titles, state: State) -> Response:
    """Return the number of items that have a title."""
    body.check_limits(state.settings.limits)
    return json_response(str(sum(title is not None for title in state.bundle.scorer.titles(body.items))))


def describe(document, bundle, settings):
    document["paths"]["/titles"]["post"]["x-bundle"] = bundle.version


def test_every_route_module_of_the_package_is_found():
    paths = {route.path for module in route_modules() for route in module.router.routes}
    assert {"/recommend", "/score", "/similar", "/fold-in", "/explain", "/metrics", "/v2/health/live"} < paths


@pytest.fixture
def extended(bundle, start):
    """Client of a server with the route of this module."""
    state = ServerState(Settings(bundle, limits=Limits(ids=3)))
    with start(state, more_routes=[RouteModule(router, describe)]) as client:
        yield client


def test_a_new_module_is_served_with_limits(extended, tables):
    items = tables.item_ids.tolist()
    assert extended.post("/titles", json={"items": items[:2]}).json() == 2
    assert extended.post("/titles", json={"items": items[:4]}).json()["error"]["code"] == "limit"
    assert extended.post("/titles", json={"items": [{}]}).status_code == 422
    assert 'route="/titles",status="200"} 1.0' in extended.get("/metrics").text


def test_a_new_module_is_described(extended):
    document = extended.get("/openapi.json").json()
    assert document["components"]["schemas"]["Titles"]["properties"]["items"]["maxItems"] == 3
    assert document["paths"]["/titles"]["post"]["x-bundle"]
