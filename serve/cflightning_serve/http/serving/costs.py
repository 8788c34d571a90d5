"""Estimates of how much a question computes, in rows of a table that are read: see ``work``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cflightning_serve.bundle.manifest import Manifest
from cflightning_serve.http.serving.executor import LARGE
from cflightning_serve.inference.mmr import candidate_count

PER_ID = 16
"""Rows that can be read while an id is looked up, or a number is written as JSON."""
PER_LINE = 300
"""Rows that can be read while an item, its title and its numbers are written as JSON."""
_PER_CHOICE = 600
"""Rows that can be read while one item of a diverse list is chosen, however small the pool."""
_PER_RATING = 20


def recommend(manifest: Manifest, k: int, ids: int, diversity: float | None) -> int:
    """Estimate a list of ``k``, with so many ids in its filters.

    Choosing one item of a diverse list compares all of the pool with the one before.
    """
    k = min(k, manifest.num_items)
    rows = manifest.num_items + PER_ID * (k + ids)
    if diversity:
        rows += k * (_PER_CHOICE + 2 * min(candidate_count(k), manifest.num_items))
    return rows


def similar(manifest: Manifest, k: int) -> int:
    """Estimate a list of neighbours."""
    return manifest.num_items + PER_LINE * min(k, manifest.num_items)


def fold_in(manifest: Manifest, k: int, ratings: int, excluded: int) -> int:
    """Estimate a list for a new user."""
    k = min(k, manifest.num_items)
    return manifest.num_items + (_PER_RATING + PER_ID) * ratings + PER_ID * (k + excluded)


def explain(manifest: Manifest, ratings: Sequence[Any] | None) -> int:
    """Estimate an explanation; how long the history of a known user is, the bundle says only when it is asked."""
    if ratings is None:
        return LARGE
    return manifest.num_items + PER_LINE * len(ratings)
