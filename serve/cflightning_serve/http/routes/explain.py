"""``POST /explain``: the contribution of each rated item to the score of an item."""

from __future__ import annotations

import numpy as np
from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict
from pydantic.json_schema import SkipJsonSchema

from cflightning_serve import Scorer, TopK
from cflightning_serve.bundle.manifest import Manifest
from cflightning_serve.http.errors import ApiError
from cflightning_serve.http.json_encoding import encode_json, encode_list, finite_number, finite_numbers
from cflightning_serve.http.routes.common import (
    ERRORS,
    UNKNOWN_ID,
    ItemId,
    Many,
    Rating,
    RequestBody,
    State,
    UserId,
    json_response,
    split_ratings,
)
from cflightning_serve.http.routes.items import Neighbour, neighbours_json
from cflightning_serve.http.serving.executor import ALWAYS_THREAD, ITEM_COST
from cflightning_serve.inference import explain as explaining

router = APIRouter(responses=ERRORS, tags=["inference"])

_FIELDS = ("item", "title", "rating", "contribution")
"""Fields of ``Contribution`` in order."""


class Explain(RequestBody):
    """An item, and either a known user or the ratings of a new one."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["user"]}, {"required": ["ratings"]}]})

    item: ItemId
    user: UserId | SkipJsonSchema[None] = None
    ratings: Many[tuple[ItemId, Rating]] | SkipJsonSchema[None] = None


class Contribution(BaseModel):
    """The contribution of a rated item to the score before it is scaled into the rating range."""

    item: ItemId
    title: str | None
    rating: float | None
    contribution: float


class Explanation(BaseModel):
    """Contributions, base and rest add up to the score before it is scaled into the rating range."""

    score: float
    base: float
    rest: float
    contributions: list[Contribution]
    nearest: list[Neighbour]


@router.post("/explain", response_model=Explanation, responses=UNKNOWN_ID)
async def explain(body: Explain, state: State) -> Response:
    """Explain the score of an item by the contribution of each rated item."""
    body.check_limits(state.settings.limits)
    fields = body.model_fields_set & {"user", "ratings"}
    if len(fields) != 1 or getattr(body, *fields) is None:
        raise ApiError(422, "input", "explain: needs either user or ratings; give one of them")
    scorer = state.bundle.scorer
    state.metrics.count_ids("item", (scorer.knows_item(body.item),))

    def compute() -> str:
        if body.user is not None:
            result = scorer.explain(body.user, body.item)
            return _explanation_json(scorer, result, finite_numbers(scorer.history(body.user)[1]))
        items, ratings = split_ratings(body.ratings or [])
        result = scorer.explain(None, body.item, items=items, ratings=ratings)
        return _explanation_json(scorer, result, ratings)

    return json_response(await state.executor.run(cost(body, scorer.manifest), compute))


def cost(body: Explain, manifest: Manifest) -> int:
    """Estimate the cost of a request; the length of a known user's history is not known in advance."""
    return ALWAYS_THREAD if body.ratings is None else manifest.num_items + ITEM_COST * len(body.ratings)


def _explanation_json(scorer: Scorer, result: explaining.Explanation, ratings: list[float]) -> str:
    """Encode an ``Explanation``.

    Args:
        scorer: scorer of the bundle.
        result: explanation of the scorer.
        ratings: rating of each of its items, which are in the order of the request, repeats included.
    """
    items = result.items.tolist()
    sums = {
        name: finite_number(np.float32(value))
        for name, value in (("score", result.score), ("base", result.base), ("rest", result.rest))
    }
    rows = zip(items, scorer.titles(items), ratings, finite_numbers(result.contributions), strict=True)
    contributions = encode_list(dict(zip(_FIELDS, row, strict=True)) for row in rows)
    nearest = neighbours_json(scorer, TopK(*result.nearest))
    return f'{encode_json(sums)[:-1]},"contributions":{contributions},"nearest":{nearest}}}'
