"""``POST /similar-users`` and ``POST /audience``: the users most similar to a user, and those of an item."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from cflightning_serve import TopKUsers
from cflightning_serve.bundle.manifest import Manifest
from cflightning_serve.http.errors import ErrorResponse
from cflightning_serve.http.json_encoding import encode_list, finite_numbers
from cflightning_serve.http.routes.common import (
    ERRORS,
    UNKNOWN_ITEM,
    ItemId,
    RequestBody,
    ResponseDescriptions,
    State,
    UserCount,
    UserId,
    json_response,
)
from cflightning_serve.http.serving.executor import ID_COST

router = APIRouter(responses=ERRORS, tags=["inference"])

UNKNOWN_USER: ResponseDescriptions = {404: {"model": ErrorResponse, "description": "Training has not seen the user"}}


class SimilarUsers(RequestBody):
    """A user, and the number of similar ones."""

    user: UserId
    k: UserCount = 10


class Audience(RequestBody):
    """An item, and the number of users."""

    item: ItemId
    k: UserCount = 10
    exclude_seen: bool | None = Field(
        None, description="leave out the users who have seen the item; default: if the bundle has the seen items"
    )


class NeighbourUser(BaseModel):
    """A similar user; the similarity is the cosine of the user vectors."""

    user: UserId
    similarity: float


class NeighbourUsers(BaseModel):
    """The most similar users, most similar first."""

    users: list[NeighbourUser]


class ScoredUser(BaseModel):
    """A user, and the score that the item has for this user."""

    user: UserId
    score: float


class ScoredUsers(BaseModel):
    """The users for whom the item has the highest scores, best first."""

    users: list[ScoredUser]


@router.post("/similar-users", response_model=NeighbourUsers, responses=UNKNOWN_USER)
async def similar_users(body: SimilarUsers, state: State) -> Response:
    """Find the users most similar to a user."""
    body.check_limits(state.settings.limits)
    bundle = state.bundle
    state.metrics.count_ids("user", (bundle.knows_user(body.user),))

    def compute() -> str:
        return users_json(bundle.scorer.similar_users(body.user, body.k), "similarity")

    return json_response(await state.executor.run(cost(body, bundle.scorer.manifest), compute))


@router.post("/audience", response_model=ScoredUsers, responses=UNKNOWN_ITEM)
async def audience(body: Audience, state: State) -> Response:
    """Find the users for whom an item has the highest scores."""
    body.check_limits(state.settings.limits)
    scorer = state.bundle.scorer
    state.metrics.count_ids("item", (scorer.knows_item(body.item),))

    def compute() -> str:
        return users_json(scorer.audience(body.item, body.k, exclude_seen=body.exclude_seen), "score")

    return json_response(await state.executor.run(cost(body, scorer.manifest), compute))


def cost(body: SimilarUsers | Audience, manifest: Manifest) -> int:
    """Estimate the cost of a request, without the seen items, whose number is not known in advance."""
    return manifest.num_users + 2 * ID_COST * min(body.k, manifest.num_users)


def users_json(top: TopKUsers, measure: str) -> str:
    """Encode a response with the scores under the key ``measure``."""
    rows = zip(top.users.tolist(), finite_numbers(top.scores), strict=True)
    return f'{{"users":{encode_list({"user": user, measure: score} for user, score in rows)}}}'
