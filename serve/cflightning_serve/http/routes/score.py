"""``POST /score``: predictions for pairs of user and item."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Response
from pydantic import BaseModel

from cflightning_serve.http.json_encoding import encode_list, finite_numbers
from cflightning_serve.http.routes.common import ERRORS, ItemId, Many, RequestBody, State, UserId, as_ids, json_response
from cflightning_serve.http.serving.executor import ITEM_COST

router = APIRouter(responses=ERRORS, tags=["inference"])

_FIELDS = ("user", "item", "score", "known_user", "known_item")
"""Fields of ``ScoredPair`` in order."""


class Score(RequestBody):
    """Pairs of user and item."""

    pairs: Many[tuple[UserId, ItemId]]


class ScoredPair(BaseModel):
    """A pair and its predicted score."""

    user: UserId
    item: ItemId
    score: float
    known_user: bool
    known_item: bool


class Scores(BaseModel):
    """The scores in the order of the request."""

    scores: list[ScoredPair]


@router.post("/score", response_model=Scores)
async def score(body: Score, state: State) -> Response:
    """Predict the scores of pairs of user and item."""
    body.check_limits(state.settings.limits)
    bundle = state.bundle
    scorer = bundle.scorer
    users, items = as_ids(user for user, _ in body.pairs), as_ids(item for _, item in body.pairs)

    def compute() -> tuple[npt.NDArray[np.float32], list[bool], list[bool], str]:
        known_users, known_items = scorer.knows_user(users).tolist(), scorer.knows_item(items).tolist()
        scores = scorer.score(users, items)
        rows = zip(users, items, finite_numbers(scores), known_users, known_items, strict=True)
        text = f'{{"scores":{encode_list(dict(zip(_FIELDS, row, strict=True)) for row in rows)}}}'
        return scores, known_users, known_items, text

    scores, known_users, known_items, text = await state.executor.run(cost(body), compute)
    state.metrics.count_ids("user", known_users)
    state.metrics.count_ids("item", known_items)
    bundle.add_scores("score", scores)
    return json_response(text)


def cost(body: Score) -> int:
    """Estimate the cost of a request."""
    return ITEM_COST * len(body.pairs)
