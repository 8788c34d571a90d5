"""The best items of many users at once: scores of whole blocks, then only what may be among the best is sorted."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cflightning_serve.bundle.catalogue import Catalogue
from cflightning_serve.bundle.ids import IdArray
from cflightning_serve.bundle.manifest import Manifest
from cflightning_serve.bundle.sessions import GraphSessions
from cflightning_serve.inference.recommend import ask_seen, recommend_top_k
from cflightning_serve.inference.top_k import top_k_indices

_BLOCK = 1 << 19
"""Scores that are looked at together (2 MiB): they stay in the processor's cache."""


class Lists(NamedTuple):
    """Lists of n users, one after the other."""

    counts: npt.NDArray[np.int64]
    """int64 [n], items of each list."""
    items: IdArray
    """int64 [sum of counts] or object of str, raw ids, the best of each list first."""
    scores: npt.NDArray[np.float32]
    """float32 [sum of counts], as in ``TopK``."""


def recommend_in_bulk(
    manifest: Manifest,
    graphs: GraphSessions,
    catalogue: Callable[[], Catalogue],
    user: IdArray,
    k: int,
    *,
    exclude_seen: bool,
) -> Lists:
    """List the best items of users, as `recommend_top_k` does, in less time.

    Args:
        manifest: the bundle's.
        graphs: the bundle's.
        catalogue: gives the bundle's.
        user: ids [n].
        k: how many, at least 1.
        exclude_seen: whether to leave out what each user has seen.

    Raises:
        UnsupportedError: the bundle does not know what users have seen.
    """
    if "scores" not in manifest.graphs:  # of an older bundle
        best = recommend_top_k(manifest, graphs, user, k, exclude_seen=exclude_seen)
        parts = [Lists(np.array([len(top.items)]), top.items, top.scores) for top in best]
    else:
        step = max(1, _BLOCK // manifest.num_items)
        parts = [
            _block(manifest, graphs, catalogue(), user[start : start + step], k, exclude_seen)
            for start in range(0, len(user), step)
        ]
    if not parts:
        empty = np.empty(0, np.int64 if manifest.item_ids == "int64" else object)
        return Lists(np.empty(0, np.int64), empty, np.empty(0, np.float32))
    return Lists(*map(np.concatenate, zip(*parts, strict=True)))


def _block(
    manifest: Manifest, graphs: GraphSessions, catalogue: Catalogue, user: IdArray, k: int, exclude_seen: bool
) -> Lists:
    order, score = graphs.run("scores", ("order", "score"), {"user": user})
    if exclude_seen:
        place, position = ask_seen(manifest, graphs, "place", user)
        order[position, place] = -np.inf
    places, counts = top_k_indices(order, k)
    kept = np.arange(places.shape[1]) < counts[:, None]
    chosen = places[kept]
    return Lists(counts, catalogue.ids[chosen], score[np.repeat(np.arange(len(user)), counts), chosen])
