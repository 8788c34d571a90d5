"""The JSON routes: ``/recommend``, ``/score``, ``/similar``, ``/fold-in``, ``/explain``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter, Response

from cflightning_serve import Scorer, TopK
from cflightning_serve.http.errors import ApiError
from cflightning_serve.http.json_encoding import encode_json, encode_list, finite_number, finite_numbers
from cflightning_serve.http.middleware.fast_path import REFUSED, question_route
from cflightning_serve.http.routes import schemas as bodies
from cflightning_serve.http.serving import costs
from cflightning_serve.http.serving.executor import ITEM_COST, Executor
from cflightning_serve.http.serving.loaded_bundle import LoadedBundle
from cflightning_serve.http.serving.metrics import Metrics
from cflightning_serve.http.serving.state import ServerState
from cflightning_serve.http.settings import Limits

_UNKNOWN: dict[int | str, dict[str, Any]] = {404: {**REFUSED[422], "description": "The item was not seen in training"}}
_FILTERS = ("exclude_seen", "allow", "deny", "categories", "min_count", "diversity")


def routes(state: ServerState, work: Executor) -> APIRouter:
    """Make the routes.

    Args:
        state: of the server.
        work: where large questions are answered.
    """
    limits, metrics = state.settings.limits, state.metrics
    router = APIRouter(route_class=question_route(work), responses=REFUSED, tags=["questions"])

    @router.post("/recommend", response_model=bodies.Recommendations)
    async def recommend(body: bodies.Recommend) -> Response:
        """Find the best items for a user; a user who is not known gets what most would like."""
        lists = (body.exclude, body.allow, body.deny, body.categories)
        _check(limits, body.k, *lists)
        served = state.bundle
        scorer = served.scorer
        filters = {name: value for name in _FILTERS if (value := getattr(body, name)) is not None}

        def ask() -> tuple[TopK, bool, str]:
            best = scorer.recommend(body.user, body.k, body.exclude or None, **filters)
            known = served.knows_user(body.user)
            return best, known, f'{{"items":{_scored(served, best)},"known_user":{"true" if known else "false"}}}'

        rows = costs.recommend(
            scorer.manifest, body.k, sum(len(ids) for ids in lists if ids is not None), body.diversity
        )
        best, known, text = await work.run(rows, ask)
        metrics.count_ids("user", (known,))
        _spread(served, "recommend", best.scores)
        return _sent(text)

    @router.post("/score", response_model=bodies.Scores)
    async def score(body: bodies.Score) -> Response:
        """Predict what users give items, pair by pair."""
        _check(limits, 1, body.pairs)
        served = state.bundle
        scorer = served.scorer
        users: list[Any] = [pair[0] for pair in body.pairs]
        items: list[Any] = [pair[1] for pair in body.pairs]

        def ask() -> tuple[Any, list[bool], list[bool], str]:
            known_users, known_items = scorer.knows_user(users).tolist(), scorer.knows_item(items).tolist()
            scores = scorer.score(users, items)
            keys = ("user", "item", "score", "known_user", "known_item")
            rows = zip(users, items, finite_numbers(scores), known_users, known_items, strict=True)
            text = f'{{"scores":{encode_list(dict(zip(keys, row, strict=True)) for row in rows)}}}'
            return scores, known_users, known_items, text

        scores, known_users, known_items, text = await work.run(ITEM_COST * len(users), ask)
        metrics.count_ids("user", known_users)
        metrics.count_ids("item", known_items)
        _spread(served, "score", scores)
        return _sent(text)

    @router.post("/similar", response_model=bodies.Neighbours, responses=_UNKNOWN)
    async def similar(body: bodies.Similar) -> Response:
        """Find the items most like an item."""
        _check(limits, body.k)
        scorer = state.bundle.scorer
        _count_items(metrics, scorer, [body.item])

        def ask() -> str:
            return f'{{"items":{_listed(scorer, scorer.similar_items(body.item, body.k), "similarity")}}}'

        return _sent(await work.run(costs.similar(scorer.manifest, body.k), ask))

    @router.post("/fold-in", response_model=bodies.FoldedIn)
    async def fold_in(body: bodies.FoldIn) -> Response:
        """Find the best items for somebody by ratings alone."""
        _check(limits, body.k, body.ratings, body.exclude)
        served = state.bundle
        scorer = served.scorer
        items, ratings = _columns(body.ratings)

        def ask() -> tuple[list[bool], str]:
            exclude: list[Any] = body.exclude
            answer = scorer.fold_in(items, ratings, body.k, exclude=exclude or None)
            known = np.asarray(answer.known).tolist()
            unknown = [item for item, knows in zip(items, known, strict=True) if not knows]
            best = TopK(answer.items, answer.scores)
            return known, f'{{"items":{_scored(served, best)},"unknown_items":{encode_list(unknown)}}}'

        known, text = await work.run(costs.fold_in(scorer.manifest, body.k, len(items), len(body.exclude)), ask)
        metrics.count_ids("item", known)
        return _sent(text)

    @router.post("/explain", response_model=bodies.Explanation, responses=_UNKNOWN)
    async def explain(body: bodies.Explain) -> Response:
        """Say what each rated item adds to the score of an item."""
        _check(limits, 1, body.ratings)
        given = body.model_fields_set & {"user", "ratings"}
        if len(given) != 1 or getattr(body, *given) is None:
            raise ApiError(422, "input", "explain: needs either user or ratings; give one of them")
        scorer = state.bundle.scorer
        _count_items(metrics, scorer, [body.item])

        def ask() -> str:
            if body.user is not None:
                answer = scorer.explain(body.user, body.item)
                return _explanation(scorer, answer, finite_numbers(scorer.history(body.user)[1]))
            items, ratings = _columns(body.ratings or [])
            answer = scorer.explain(None, body.item, items=items, ratings=ratings)
            return _explanation(scorer, answer, ratings)

        return _sent(
            await work.run(costs.explain(scorer.manifest, None if body.ratings is None else len(body.ratings)), ask)
        )

    return router


def _explanation(scorer: Scorer, answer: Any, ratings: list[float]) -> str:
    """JSON; ``ratings`` are those of the items of ``answer``, which stand as they were given, repeats included."""
    items = answer.items.tolist()
    keys = ("item", "title", "rating", "contribution")
    rows = zip(items, scorer.titles(items), ratings, finite_numbers(answer.contributions), strict=True)
    parts = encode_json({name: finite_number(np.float32(getattr(answer, name))) for name in ("score", "base", "rest")})
    contributions = encode_list(dict(zip(keys, row, strict=True)) for row in rows)
    nearest = _listed(scorer, TopK(*answer.nearest), "similarity")
    return f'{parts[:-1]},"contributions":{contributions},"nearest":{nearest}}}'


def _listed(scorer: Scorer, top: TopK, measure: str) -> str:
    items = top.items.tolist()
    rows = zip(items, scorer.titles(items), finite_numbers(top.scores), strict=True)
    return encode_list({"item": item, "title": title, measure: value} for item, title, value in rows)


def _columns(ratings: Sequence[tuple[Any, float]]) -> tuple[list[Any], list[float]]:
    return [one[0] for one in ratings], [one[1] for one in ratings]


def _count_items(metrics: Metrics, scorer: Scorer, items: list[Any]) -> None:
    metrics.count_ids("item", scorer.knows_item(items).tolist())


def _spread(served: LoadedBundle, question: str, scores: Any) -> None:
    distribution = served.score_distributions.get(question)
    if distribution is not None:
        distribution.add(scores)


def _check(limits: Limits, k: int, *lists: Sequence[Any] | None) -> None:
    """Raise ``ApiError`` where a question is larger than this server answers."""
    if k > limits.k:
        raise ApiError(422, "limit", f"k: must not exceed {limits.k:,}, got {k}")
    for ids in lists:
        if ids is not None and len(ids) > limits.ids:
            raise ApiError(422, "limit", f"a list must not hold more than {limits.ids:,} ids, got {len(ids):,}")


def _scored(served: LoadedBundle, top: TopK) -> str:
    """JSON of `_listed`, put together of texts that are kept: most of a short answer's time went into titles."""
    parts = map(served.item_prefix, top.items.tolist())
    return f"[{','.join([f'{part}{score}}}' for part, score in zip(parts, finite_numbers(top.scores), strict=True)])}]"


def _sent(text: str) -> Response:
    # A title out of a damaged table may hold half a character (a lone surrogate), which no encoding has.
    return Response(text.encode(errors="replace"), media_type="application/json")
