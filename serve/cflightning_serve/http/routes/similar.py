"""``POST /similar``: the items most similar to an item."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import BaseModel

from cflightning_serve.bundle.manifest import Manifest
from cflightning_serve.http.routes.common import (
    ERRORS,
    UNKNOWN_ITEM,
    Count,
    ItemId,
    RequestBody,
    State,
    json_response,
)
from cflightning_serve.http.routes.items import Neighbour, neighbours_json
from cflightning_serve.http.serving.executor import ITEM_COST

router = APIRouter(responses=ERRORS, tags=["inference"])


class Similar(RequestBody):
    """An item, and the number of similar ones."""

    item: ItemId
    k: Count = 10


class Neighbours(BaseModel):
    """The most similar items, most similar first; similarities are cosines."""

    items: list[Neighbour]


@router.post("/similar", response_model=Neighbours, responses=UNKNOWN_ITEM)
async def similar(body: Similar, state: State) -> Response:
    """Find the items most similar to an item."""
    body.check_limits(state.settings.limits)
    scorer = state.bundle.scorer
    state.metrics.count_ids("item", (scorer.knows_item(body.item),))

    def compute() -> str:
        return f'{{"items":{neighbours_json(scorer, scorer.similar_items(body.item, body.k))}}}'

    return json_response(await state.executor.run(cost(body, scorer.manifest), compute))


def cost(body: Similar, manifest: Manifest) -> int:
    """Estimate the cost of a request."""
    return manifest.num_items + ITEM_COST * min(body.k, manifest.num_items)
