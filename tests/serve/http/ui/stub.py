"""A server with the page and stubs of the JSON routes that it uses, computed in numpy from plain tables."""

from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from cflightning_serve.errors import InputError, ServeError, UnsupportedError
from cflightning_serve.http.serving.executor import Executor
from cflightning_serve.http.ui.catalogue import MAP_ITEMS
from cflightning_serve.http.ui.routes import page_router


class Catalogue(NamedTuple):
    ids: Any
    counts: Any
    categories: dict


class StubScorer:
    """The methods of a ``Scorer`` that the page uses. ``has_factors`` False: a bundle without that graph.

    ``index`` maps an id to its index in ``vectors``; ``factor_calls`` counts calls of ``factors``.
    """

    has_factors = True

    def __init__(self, ids, titles, counts, vectors, rating_range, unit="rating"):
        self.ids, self._titles, self.vectors = list(ids), titles, vectors
        self.index = {item: index for index, item in enumerate(self.ids)}
        self.counts = counts
        self.factor_calls = 0
        self.manifest = SimpleNamespace(
            num_items=len(self.ids) + 1,
            item_ids="string" if self.ids and isinstance(self.ids[0], str) else "int64",
            rating_range=rating_range,
            units={"score": unit, "recommend": unit},
            titles=None if titles is None else "titles.json",
        )

    @property
    def catalogue(self):
        kind = object if self.manifest.item_ids == "string" else np.int64
        return Catalogue(np.array(self.ids, kind), None if self.counts is None else np.array(self.counts), {})

    def titles(self, items):
        return [None if self._titles is None or i not in self.index else self._titles[self.index[i]] for i in items]

    def title(self, item):
        return self.titles([item])[0]

    def factors(self, items):
        if not self.has_factors:
            raise UnsupportedError("bundle: has no graph 'factors'; export the bundle again with it")
        self.factor_calls += 1
        indices = np.array([self.index.get(item, -1) for item in items], np.int64)
        return np.where(indices[:, None] >= 0, self.vectors[indices], 0) if len(indices) else np.zeros((0, 3))

    def knows_item(self, items):
        return np.array([item in self.index for item in items], bool)


def make_app(scorer, biases, *, fold_in=True, key=None, noise=0.3, map_items=MAP_ITEMS):
    """Make the server. ``app.state.down`` True: every response is 503, as while a server stops."""
    app = FastAPI()
    app.include_router(page_router(lambda: scorer, Executor(), map_items))
    app.state.down = False
    vectors, rating_range = scorer.vectors, scorer.manifest.rating_range

    @app.middleware("http")
    async def guard(request: Request, call_next):
        if app.state.down:
            return error_response(503, "busy", "too many requests are in work; try again")
        is_open = request.url.path == "/" or request.url.path.startswith("/static/")
        if key is not None and not is_open and request.headers.get("x-api-key") != key:
            return error_response(401, "key", "needs an API key: X-API-Key: KEY")
        return await call_next(request)

    @app.exception_handler(ServeError)
    async def handle(request: Request, error: ServeError):
        return error_response(422, "unsupported" if isinstance(error, UnsupportedError) else "input", str(error))

    def named(item):
        return {"item": item, "title": scorer.titles([item])[0]}

    def solve(ratings):
        """Ridge regression in logit space: indices of the known rated items, contributions [items, ratings], logits."""
        if not fold_in:
            raise UnsupportedError("bundle: has no graph 'fold_in'; export the bundle again with it")
        known = [(scorer.index[item], rating) for item, rating in ratings if item in scorer.index]
        rated = [index for index, _ in known]
        table = np.c_[vectors[rated], np.ones(len(rated))]
        if rating_range is None:
            targets = np.full(len(rated), 2.0)
        else:
            low, high = rating_range
            share = (np.array([rating for _, rating in known], float) - low) / (high - low)
            share = np.clip(share, 0.03, 0.97)
            targets = np.log(share / (1 - share)) - biases[rated]
        gram = table.T @ table + noise * np.eye(table.shape[1])
        all_items = np.c_[vectors, np.ones(len(vectors))]
        contributions = all_items @ np.linalg.solve(gram, table.T) * targets
        return rated, contributions, biases + contributions.sum(1)

    def scaled(logits):
        if rating_range is None:
            return logits
        low, high = rating_range
        return low + (high - low) / (1 + np.exp(-logits))

    @app.post("/fold-in")
    async def fold_in_(request: Request):
        body = await request.json()
        rated, _, logits = solve(body["ratings"])
        unrated = [index for index in np.argsort(-logits, kind="stable").tolist() if index not in set(rated)]
        best = unrated[: body.get("k", 10)]
        items = [named(scorer.ids[index]) | {"score": float(scaled(logits[index]))} for index in best]
        return {"items": items, "unknown_items": [item for item, _ in body["ratings"] if item not in scorer.index]}

    @app.post("/explain")
    async def explain(request: Request):
        body = await request.json()
        if body["item"] not in scorer.index:
            raise InputError(f"explain: item must be known, got {body['item']!r}")
        rated, contributions, logits = solve(body["ratings"])
        target = scorer.index[body["item"]]
        ratings = [rating for item, rating in body["ratings"] if item in scorer.index]
        units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        cosines = units[rated] @ units[target]
        nearest = np.argsort(-cosines, kind="stable")[:3]
        return {
            "score": float(scaled(logits[target])),
            "base": float(biases[target]),
            "rest": 0.0,
            "contributions": [
                named(scorer.ids[index]) | {"rating": rating, "contribution": float(contribution)}
                for index, rating, contribution in zip(rated, ratings, contributions[target], strict=True)
            ],
            "nearest": [named(scorer.ids[rated[n]]) | {"similarity": float(cosines[n])} for n in nearest],
        }

    return app


def error_response(status, code, message):
    return JSONResponse({"error": {"code": code, "message": message}}, status)
