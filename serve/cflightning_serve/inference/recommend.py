"""Graphs ``recommend`` and ``filtered``: top-k lists of users, with exclusions, filters and diversity."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from cflightning_serve.bundle.ids import IdArray, RawId, RawIds, check_positive_integer, to_exclusions, to_id_array
from cflightning_serve.bundle.sessions import GraphSessions
from cflightning_serve.inference.history import run_seen
from cflightning_serve.inference.mmr import candidate_count, check_diversity, select_diverse
from cflightning_serve.inference.results import TopK, drop_fillers

_NO_USERS = np.empty(0, np.int64)
_NO_ITEMS: dict[str, IdArray] = {"int64": np.empty(0, np.int64), "string": np.empty(0, object)}


def recommend(
    graphs: GraphSessions,
    users: RawId | RawIds,
    k: int,
    exclude: Iterable[RawId] | Sequence[Iterable[RawId]] | None,
    *,
    exclude_seen: bool | None,
    allowed: npt.NDArray[np.bool_] | None,
    diversity: float,
) -> TopK | list[TopK]:
    """Implement :meth:`cflightning_serve.Scorer.recommend`; ``allowed`` is the mask of its catalogue filters."""
    manifest = graphs.manifest
    user, is_single = to_id_array(users, manifest.user_ids, "user")
    top = recommend_top_k(
        graphs,
        user,
        check_positive_integer("k", k),
        exclude=None if exclude is None else to_exclusions(exclude, manifest.item_ids, len(user), is_single),
        exclude_seen=manifest.seen_graph is not None if exclude_seen is None else exclude_seen,
        allowed=allowed,
        diversity=check_diversity(diversity),
    )
    return top[0] if is_single else top


def recommend_top_k(
    graphs: GraphSessions,
    user: IdArray,
    k: int,
    *,
    exclude: Sequence[IdArray] | None = None,
    exclude_seen: bool = False,
    allowed: npt.NDArray[np.bool_] | None = None,
    diversity: float = 0.0,
) -> list[TopK]:
    """Return the top-k list of each user, from validated arguments.

    Args:
        graphs: the bundle's graphs.
        user: ids [n].
        k: length of the lists, at least 1.
        exclude: item ids to exclude for each user; None for none.
        exclude_seen: whether to exclude the seen items.
        allowed: bool [items], mask of the candidates in catalogue order; None for the whole catalogue.
        diversity: from 0 (highest scores) to 1; see :func:`cflightning_serve.inference.mmr.select_diverse`.

    Raises:
        UnsupportedError: the bundle lacks a required graph.
    """
    num_items = graphs.manifest.num_items
    length = np.array([min(candidate_count(k) if diversity else k, num_items)])
    graph, filters = ("recommend", {}) if allowed is None else ("filtered", {"allowed": allowed})
    top: list[TopK] = []
    for block in graphs.blocks(len(user), num_items):
        users = user[block]
        exclude_user, exclude_item = _exclusions(
            graphs, users, None if exclude is None else exclude[block], exclude_seen
        )
        inputs = {"user": users, "k": length, "exclude_user": exclude_user, "exclude_item": exclude_item, **filters}
        items, scores = graphs.run(graph, ("item", "score"), inputs)
        top.extend(map(drop_fillers, items, scores))
    return [_diversify(graphs, candidates, k, diversity) for candidates in top] if diversity else top


def _exclusions(
    graphs: GraphSessions, user: IdArray, exclude: Sequence[IdArray] | None, exclude_seen: bool
) -> tuple[npt.NDArray[np.int64], IdArray]:
    """Return pairs to exclude as the graphs take them: indices in ``user``, int64 [m], and item ids [m]."""
    positions, items = _NO_USERS, _NO_ITEMS[graphs.manifest.item_ids]
    if exclude is not None:
        positions = np.repeat(np.arange(len(exclude)), [len(part) for part in exclude])
        items = np.concatenate(exclude) if exclude else items
    if exclude_seen:
        seen_items, seen_positions = run_seen(graphs, "item", user)
        if exclude is None:
            return seen_positions, seen_items
        return np.concatenate([positions, seen_positions]), np.concatenate([items, seen_items])
    return positions, items


def _diversify(graphs: GraphSessions, candidates: TopK, k: int, diversity: float) -> TopK:
    [vectors] = graphs.run("factors", ("vector",), {"item": candidates.items})
    selected = select_diverse(candidates.scores, vectors, k, diversity)
    return TopK(candidates.items[selected], candidates.scores[selected])
