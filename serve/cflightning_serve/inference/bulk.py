"""Graph ``scores``: top-k lists of many users, from the scores of whole blocks of users."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cflightning_serve.bundle.catalogue import Catalogue
from cflightning_serve.bundle.ids import IdArray, RawIds, check_positive_integer, to_id_array
from cflightning_serve.bundle.sessions import GraphSessions
from cflightning_serve.inference.history import run_seen
from cflightning_serve.inference.recommend import recommend_top_k
from cflightning_serve.inference.top_k import top_k_indices

CACHED_SCORES = 1 << 19
"""Number of scores of one block: 2 MiB, which stay in the processor's cache."""


class TopKLists(NamedTuple):
    """Top-k lists of n users, concatenated."""

    counts: npt.NDArray[np.int64]
    """int64 [n], length of each list."""
    items: IdArray
    """int64 [sum of counts] or object of str, raw ids, each list best first."""
    scores: npt.NDArray[np.float32]
    """float32 [sum of counts], as in ``TopK``."""


def recommend_in_bulk(
    graphs: GraphSessions,
    catalogue: Callable[[], Catalogue],
    users: RawIds,
    k: int,
    *,
    exclude_seen: bool | None = None,
    block_size: int = CACHED_SCORES,
) -> TopKLists:
    """Implement :meth:`cflightning_serve.Scorer.recommend_many`.

    Args:
        graphs: the bundle's graphs.
        catalogue: returns the bundle's catalogue.
        users: ids [n].
        k: length of the lists, at least 1.
        exclude_seen: whether to exclude the seen items; None for yes if the bundle has them.
        block_size: number of scores that are computed at once.
    """
    manifest = graphs.manifest
    user, _ = to_id_array(users, manifest.user_ids, "user")
    k = check_positive_integer("k", k)
    without_seen = manifest.seen_graph is not None if exclude_seen is None else exclude_seen
    if "scores" not in manifest.graphs:  # an older bundle
        top = recommend_top_k(graphs, user, k, exclude_seen=without_seen)
        parts = [TopKLists(np.array([len(items)]), items, scores) for items, scores in top]
    else:
        step = max(1, block_size // manifest.num_items)
        parts = [
            _recommend_block(graphs, catalogue(), user[start : start + step], k, without_seen)
            for start in range(0, len(user), step)
        ]
    if not parts:
        no_items = np.empty(0, np.int64 if manifest.item_ids == "int64" else object)
        return TopKLists(np.empty(0, np.int64), no_items, np.empty(0, np.float32))
    return TopKLists(*map(np.concatenate, zip(*parts, strict=True)))


def _recommend_block(
    graphs: GraphSessions, catalogue: Catalogue, user: IdArray, k: int, without_seen: bool
) -> TopKLists:
    order, score = graphs.run("scores", ("order", "score"), {"user": user})
    if without_seen:
        indices, position = run_seen(graphs, "place", user)
        order[position, indices] = -np.inf
    indices, counts = top_k_indices(order, k)
    valid = np.arange(indices.shape[1]) < counts[:, None]
    selected = indices[valid]
    return TopKLists(counts, catalogue.ids[selected], score[np.repeat(np.arange(len(user)), counts), selected])
