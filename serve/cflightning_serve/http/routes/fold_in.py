"""``POST /fold-in``: the top-k list of a new user, from ratings in the request."""

from __future__ import annotations

import numpy as np
from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from cflightning_serve import TopK
from cflightning_serve.bundle.manifest import Manifest
from cflightning_serve.http.json_encoding import encode_list
from cflightning_serve.http.routes.common import (
    ERRORS,
    Count,
    ItemId,
    Many,
    Rating,
    RequestBody,
    State,
    as_ids,
    json_response,
    split_ratings,
)
from cflightning_serve.http.routes.items import Recommended, recommended_json
from cflightning_serve.http.serving.executor import ID_COST

router = APIRouter(responses=ERRORS, tags=["inference"])

_RATING_COST = 20
"""Cost of a rating in the solver, besides the lookup of its item."""


class FoldIn(RequestBody):
    """Ratings of a user who need not be known."""

    ratings: Many[tuple[ItemId, Rating]]
    k: Count = 10
    exclude: Many[ItemId] = Field(default=[])


class FoldedIn(BaseModel):
    """The best items for a user with these ratings, and the rated items that training has not seen."""

    items: list[Recommended]
    unknown_items: list[ItemId]


@router.post("/fold-in", response_model=FoldedIn)
async def fold_in(body: FoldIn, state: State) -> Response:
    """Recommend items to a new user by ratings alone."""
    body.check_limits(state.settings.limits)
    bundle = state.bundle
    scorer = bundle.scorer
    items, ratings = split_ratings(body.ratings)

    def compute() -> tuple[list[bool], str]:
        result = scorer.fold_in(items, ratings, body.k, exclude=as_ids(body.exclude) or None)
        known: list[bool] = np.asarray(result.known).tolist()
        unknown = [item for item, is_known in zip(items, known, strict=True) if not is_known]
        best = recommended_json(bundle, TopK(result.items, result.scores))
        return known, f'{{"items":{best},"unknown_items":{encode_list(unknown)}}}'

    known, text = await state.executor.run(cost(body, scorer.manifest), compute)
    state.metrics.count_ids("item", known)
    return json_response(text)


def cost(body: FoldIn, manifest: Manifest) -> int:
    """Estimate the cost of a request."""
    k = min(body.k, manifest.num_items)
    return manifest.num_items + (_RATING_COST + ID_COST) * len(body.ratings) + ID_COST * (k + len(body.exclude))
