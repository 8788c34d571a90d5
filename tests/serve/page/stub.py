"""A server with the page and stand-ins for what the page asks of the others, computed in numpy from plain tables."""

from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from cflightning_serve.errors import InputError, ServeError, UnsupportedError
from cflightning_serve.http.serving.executor import Work
from cflightning_serve.http.ui.routes import routes


class Catalogue(NamedTuple):
    ids: Any
    counts: Any
    categories: dict


class StubScorer:
    """What the page asks of a ``Scorer``. ``gives_factors`` False: a bundle without that graph."""

    gives_factors = True

    def __init__(self, ids, titles, counts, vectors, rating_range, unit="rating"):
        self._ids, self._titles, self._vectors = list(ids), titles, vectors
        self.rows = {one: row for row, one in enumerate(self._ids)}
        self.counts = counts
        self.asked = 0
        self.manifest = SimpleNamespace(
            num_items=len(self._ids) + 1,
            item_ids="string" if self._ids and isinstance(self._ids[0], str) else "int64",
            rating_range=rating_range,
            units={"score": unit, "recommend": unit},
            titles=None if titles is None else "titles.json",
        )

    @property
    def catalogue(self):
        kind = object if self.manifest.item_ids == "string" else np.int64
        return Catalogue(np.array(self._ids, kind), None if self.counts is None else np.array(self.counts), {})

    def titles(self, items):
        return [None if self._titles is None or i not in self.rows else self._titles[self.rows[i]] for i in items]

    def title(self, item):
        return self.titles([item])[0]

    def factors(self, items):
        if not self.gives_factors:
            raise UnsupportedError("bundle: has no graph that answers 'factors'; export the bundle again with it")
        self.asked += 1
        rows = np.array([self.rows.get(one, -1) for one in items], np.int64)
        return np.where(rows[:, None] >= 0, self._vectors[rows], 0) if len(rows) else np.zeros((0, 3))

    def knows_item(self, items):
        return np.array([one in self.rows for one in items], bool)


def make_app(scorer, biases, *, fold_in=True, key=None, noise=0.3):
    """Make the server. ``app.state.down`` True: answers nothing but 503, as one that is about to end."""
    app = FastAPI()
    app.include_router(routes(lambda: scorer, Work()))
    app.state.down = False
    vectors, rating_range = scorer._vectors, scorer.manifest.rating_range

    @app.middleware("http")
    async def guard(request: Request, call_next):
        if app.state.down:
            return refusal(503, "busy", "too many requests are in work; try again")
        is_open = request.url.path == "/" or request.url.path.startswith("/static/")
        if key is not None and not is_open and request.headers.get("x-api-key") != key:
            return refusal(401, "key", "needs an API key: X-API-Key: KEY")
        return await call_next(request)

    @app.exception_handler(ServeError)
    async def refuse(request: Request, error: ServeError):
        return refusal(422, "unsupported" if isinstance(error, UnsupportedError) else "input", str(error))

    def named(item):
        return {"item": item, "title": scorer.titles([item])[0]}

    def solve(ratings):
        """Ridge in logit space: rows of the known rated items, what each adds to every item, all logits."""
        if not fold_in:
            raise UnsupportedError("bundle: has no graph that answers 'fold_in'; export the bundle again with it")
        known = [(scorer.rows[item], rating) for item, rating in ratings if item in scorer.rows]
        rows = [row for row, _ in known]
        table = np.c_[vectors[rows], np.ones(len(rows))]
        if rating_range is None:
            wanted = np.full(len(rows), 2.0)
        else:
            low, high = rating_range
            part = (np.array([rating for _, rating in known], float) - low) / (high - low)
            part = np.clip(part, 0.03, 0.97)
            wanted = np.log(part / (1 - part)) - biases[rows]
        gram = table.T @ table + noise * np.eye(table.shape[1])
        every = np.c_[vectors, np.ones(len(vectors))]
        parts = every @ np.linalg.solve(gram, table.T) * wanted  # [items, ratings]: they add up
        return rows, parts, biases + parts.sum(1)

    def scaled(logits):
        if rating_range is None:
            return logits
        low, high = rating_range
        return low + (high - low) / (1 + np.exp(-logits))

    @app.post("/fold-in")
    async def fold_in_(request: Request):
        body = await request.json()
        rows, _, logits = solve(body["ratings"])
        left = [row for row in np.argsort(-logits, kind="stable").tolist() if row not in set(rows)]
        items = [named(scorer._ids[row]) | {"score": float(scaled(logits[row]))} for row in left[: body.get("k", 10)]]
        return {"items": items, "unknown_items": [item for item, _ in body["ratings"] if item not in scorer.rows]}

    @app.post("/explain")
    async def explain(request: Request):
        body = await request.json()
        if body["item"] not in scorer.rows:
            raise InputError(f"explain: item must be known, got {body['item']!r}")
        rows, parts, logits = solve(body["ratings"])
        target = scorer.rows[body["item"]]
        ratings = [rating for item, rating in body["ratings"] if item in scorer.rows]
        units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        cosines = units[rows] @ units[target]
        nearest = np.argsort(-cosines, kind="stable")[:3]
        return {
            "score": float(scaled(logits[target])),
            "base": float(biases[target]),
            "rest": 0.0,
            "contributions": [
                named(scorer._ids[row]) | {"rating": rating, "contribution": float(part)}
                for row, rating, part in zip(rows, ratings, parts[target], strict=True)
            ],
            "nearest": [named(scorer._ids[rows[n]]) | {"similarity": float(cosines[n])} for n in nearest],
        }

    return app


def refusal(status, code, message):
    return JSONResponse({"error": {"code": code, "message": message}}, status)
