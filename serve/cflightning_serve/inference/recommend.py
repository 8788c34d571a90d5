"""The best items of users: plain, from a part of the catalogue, without what they know, and made to differ."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cflightning_serve.bundle.ids import IdArray
from cflightning_serve.bundle.manifest import Manifest
from cflightning_serve.bundle.sessions import GraphSessions
from cflightning_serve.inference.chunks import blocks
from cflightning_serve.inference.mmr import candidate_count, choose
from cflightning_serve.inference.results import TopK, drop_fillers

SEEN = ("seen", "history")
"""Questions that say what a user has seen: every row of the table, or, in an older bundle, the training rows alone."""
_NO_ROWS = np.empty(0, np.int64)
_NO_ITEMS = {"int64": np.empty(0, np.int64), "string": np.empty(0, object)}


def recommend_top_k(
    manifest: Manifest,
    graphs: GraphSessions,
    user: IdArray,
    k: int,
    *,
    excluded: Sequence[IdArray] | None = None,
    exclude_seen: bool = False,
    allowed: npt.NDArray[np.bool_] | None = None,
    diversity: float = 0.0,
) -> list[TopK]:
    """List the best items of each user.

    Args:
        manifest: the bundle's.
        graphs: the bundle's.
        user: ids [n].
        k: how many, at least 1.
        excluded: of each user, ids to leave out; None for none.
        exclude_seen: whether to leave out what the history has of each user.
        allowed: bool [items], the items to choose from, in the order of the catalogue; None for all.
        diversity: from 0, plain lists, to 1; see :func:`cflightning_serve.inference.mmr.choose`.

    Raises:
        UnsupportedError: the bundle lacks a graph that this takes.
    """
    count = np.array([min(candidate_count(k) if diversity else k, manifest.num_items)])
    question, more = ("recommend", {}) if allowed is None else ("filtered", {"allowed": allowed})
    answers: list[TopK] = []
    for block in blocks(len(user), manifest.num_items):
        some = user[block]
        rows, items = left_out(manifest, graphs, some, None if excluded is None else excluded[block], exclude_seen)
        feeds = {"user": some, "k": count, "exclude_user": rows, "exclude_item": items, **more}
        best, scores = graphs.run(question, ("item", "score"), feeds)
        answers.extend(map(drop_fillers, best, scores))
    return [_differing(graphs, pool, k, diversity) for pool in answers] if diversity else answers


def seen_question(manifest: Manifest) -> str | None:
    """The question that says what users have seen; None where the bundle does not know."""
    return next((question for question in SEEN if question in manifest.graphs), None)


def ask_seen(
    manifest: Manifest, graphs: GraphSessions, output: str, user: IdArray
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Ask what users have seen.

    Args:
        manifest: the bundle's.
        graphs: the bundle's.
        output: `item` or `place`.
        user: ids [n].

    Returns:
        The output [m], and places in ``user``, int64 [m].

    Raises:
        UnsupportedError: the bundle does not know.
    """
    found, position = graphs.run(seen_question(manifest) or SEEN[0], (output, "position"), {"user": user})
    return found, position


def left_out(
    manifest: Manifest, graphs: GraphSessions, user: IdArray, excluded: Sequence[IdArray] | None, exclude_seen: bool
) -> tuple[npt.NDArray[np.int64], IdArray]:
    """What some users must not get, as the graphs take it: places in ``user``, int64 [m], and item ids [m]."""
    rows, items = _NO_ROWS, _NO_ITEMS[manifest.item_ids]
    if excluded is not None:
        rows = np.repeat(np.arange(len(excluded)), [len(part) for part in excluded])
        items = np.concatenate(excluded) if excluded else items
    if exclude_seen:
        seen, position = ask_seen(manifest, graphs, "item", user)
        rows, items = (position, seen) if excluded is None else (
            np.concatenate([rows, position]), np.concatenate([items, seen])
        )  # fmt: skip
    return rows, items


def _differing(graphs: GraphSessions, pool: TopK, k: int, diversity: float) -> TopK:
    [vectors] = graphs.run("factors", ("vector",), {"item": pool.items})
    chosen = choose(pool.scores, vectors, k, diversity)
    return TopK(pool.items[chosen], pool.scores[chosen])
