"""``POST /recommend``: the top-k list of a user."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field, Strict

from cflightning_serve import TopK
from cflightning_serve.bundle.manifest import Manifest
from cflightning_serve.http.json_encoding import JsonObject
from cflightning_serve.http.routes.common import (
    ERRORS,
    Count,
    ItemId,
    Many,
    RequestBody,
    State,
    UserId,
    Whole,
    json_response,
)
from cflightning_serve.http.routes.items import Recommended, recommended_json
from cflightning_serve.http.serving.executor import ID_COST
from cflightning_serve.http.serving.loaded_bundle import LoadedBundle
from cflightning_serve.http.settings import Settings
from cflightning_serve.inference.mmr import candidate_count

router = APIRouter(responses=ERRORS, tags=["inference"])

_FILTERS = ("exclude_seen", "allow", "deny", "categories", "min_count", "diversity")
"""Fields that are passed to the scorer where they are given."""
_CHOICE_COST = 600
"""Cost of choosing one item of a diverse list, besides the comparisons with the candidates."""


class Recommend(RequestBody):
    """A user, the length of the list, and filters."""

    user: UserId
    k: Count = 10
    exclude: Many[ItemId] = Field(default=[])
    exclude_seen: bool | None = Field(None, description="exclude the seen items; default: if the bundle has them")
    allow: Many[ItemId] | None = Field(None, description="recommend only these items")
    deny: Many[ItemId] | None = Field(None, description="exclude these items")
    categories: Many[str] | None = Field(None, description="only items of at least one of these categories")
    min_count: Annotated[int, Strict(), Field(ge=0), Whole] | None = Field(
        None, description="only items with at least this many training rows"
    )
    diversity: float | None = Field(None, ge=0, le=1, description="0: highest scores; 1: least similar items")


class Recommendations(BaseModel):
    """The best items, best first."""

    items: list[Recommended]
    known_user: bool


@router.post("/recommend", response_model=Recommendations)
async def recommend(body: Recommend, state: State) -> Response:
    """Recommend items to a user; an unknown user gets the items that are best on average."""
    body.check_limits(state.settings.limits)
    bundle = state.bundle
    scorer = bundle.scorer
    filters = {name: value for name in _FILTERS if (value := getattr(body, name)) is not None}

    def compute() -> tuple[TopK, bool, str]:
        best = scorer.recommend(body.user, body.k, body.exclude or None, **filters)
        known = bundle.knows_user(body.user)
        text = f'{{"items":{recommended_json(bundle, best)},"known_user":{"true" if known else "false"}}}'
        return best, known, text

    best, known, text = await state.executor.run(cost(body, scorer.manifest), compute)
    state.metrics.count_ids("user", (known,))
    bundle.add_scores("recommend", best.scores)
    return json_response(text)


def cost(body: Recommend, manifest: Manifest) -> int:
    """Estimate the cost of a request."""
    k = min(body.k, manifest.num_items)
    num_ids = sum(len(ids) for ids in (body.exclude, body.allow, body.deny, body.categories) if ids is not None)
    total = manifest.num_items + ID_COST * (k + num_ids)
    if body.diversity:  # each chosen item is compared with all candidates
        total += k * (_CHOICE_COST + 2 * min(candidate_count(k), manifest.num_items))
    return total


def describe(document: JsonObject, bundle: LoadedBundle, _: Settings) -> None:
    """Add the bundle's categories to the OpenAPI document."""
    scorer = bundle.scorer
    categories = [] if scorer.manifest.catalogue is None else list(scorer.catalogue.categories)
    if categories:
        field = document["components"]["schemas"][Recommend.__name__]["properties"]["categories"]
        for alternative in field["anyOf"]:
            if alternative.get("type") == "array":
                alternative["items"] = {"type": "string", "enum": categories}
