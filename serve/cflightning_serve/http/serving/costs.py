"""Cost estimates of the JSON routes, see ``executor``."""

from __future__ import annotations

from cflightning_serve.bundle.manifest import Manifest
from cflightning_serve.http.serving.executor import ALWAYS_THREAD, ID_COST, ITEM_COST
from cflightning_serve.inference.mmr import candidate_count

_PER_CHOICE = 600
"""Cost of choosing one item of a diverse list, besides the comparisons with the candidates."""
_PER_RATING = 20


def recommend(manifest: Manifest, k: int, ids: int, diversity: float | None, per_choice: int = _PER_CHOICE) -> int:
    """Estimate a top-k list with a number of ids in its filters."""
    k = min(k, manifest.num_items)
    cost = manifest.num_items + ID_COST * (k + ids)
    if diversity:  # each choice is compared with all candidates
        cost += k * (per_choice + 2 * min(candidate_count(k), manifest.num_items))
    return cost


def similar(manifest: Manifest, k: int) -> int:
    """Estimate a list of neighbours."""
    return manifest.num_items + ITEM_COST * min(k, manifest.num_items)


def fold_in(manifest: Manifest, k: int, ratings: int, excluded: int) -> int:
    """Estimate a top-k list of a new user."""
    k = min(k, manifest.num_items)
    return manifest.num_items + (_PER_RATING + ID_COST) * ratings + ID_COST * (k + excluded)


def explain(manifest: Manifest, ratings: int | None) -> int:
    """Estimate an explanation; the length of a known user's history is not known in advance."""
    return ALWAYS_THREAD if ratings is None else manifest.num_items + ITEM_COST * ratings
