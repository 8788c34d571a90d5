"""Items of responses: schemas, and their JSON."""

from __future__ import annotations

from pydantic import BaseModel

from cflightning_serve import Scorer, TopK
from cflightning_serve.http.json_encoding import encode_list, finite_numbers
from cflightning_serve.http.routes.common import ItemId
from cflightning_serve.http.serving.loaded_bundle import LoadedBundle


class Recommended(BaseModel):
    """A recommended item."""

    item: ItemId
    title: str | None
    score: float


class Neighbour(BaseModel):
    """A similar item; the similarity is the cosine of the item vectors."""

    item: ItemId
    title: str | None
    similarity: float


def recommended_json(bundle: LoadedBundle, top: TopK) -> str:
    """Encode a top-k list of ``Recommended``, from cached texts: titles would take most of the time of a short list."""
    prefixes = map(bundle.item_prefix, top.items.tolist())
    scores = finite_numbers(top.scores)
    return f"[{','.join([f'{prefix}{score}}}' for prefix, score in zip(prefixes, scores, strict=True)])}]"


def neighbours_json(scorer: Scorer, top: TopK) -> str:
    """Encode a list of ``Neighbour``."""
    items = top.items.tolist()
    rows = zip(items, scorer.titles(items), finite_numbers(top.scores), strict=True)
    return encode_list({"item": item, "title": title, "similarity": cosine} for item, title, cosine in rows)
