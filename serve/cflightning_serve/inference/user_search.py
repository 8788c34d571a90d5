"""Graphs ``similar_users`` and ``audience``: users by cosine similarity, and by their score of an item."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from cflightning_serve.bundle.catalogue import Catalogue
from cflightning_serve.bundle.ids import IdArray, RawId, RawIds, check_positive_integer, to_id_array
from cflightning_serve.bundle.manifest import IdType
from cflightning_serve.bundle.sessions import Array, GraphSessions
from cflightning_serve.errors import UnknownIdError
from cflightning_serve.inference.history import run_seen, user_ids
from cflightning_serve.inference.results import TopKUsers
from cflightning_serve.inference.top_k import top_k_indices

CACHED_ELEMENTS = 1 << 19
"""Number of elements of the vectors and scores of one block of users: 2 MiB, which stay in the processor's cache."""
USERS_PER_LOOKUP = 1024
"""Number of users whose seen items are read at once."""
READ_ALL_FROM: dict[IdType, int] = {"int64": 1000, "string": 50}
"""Id type -> one in so many users, from which on the ids of all users are read instead of one by one."""


def similar_users(graphs: GraphSessions, users: RawId | RawIds, k: int) -> TopKUsers | list[TopKUsers]:
    """Implement :meth:`cflightning_serve.Scorer.similar_users`."""
    user, is_single = to_id_array(users, graphs.manifest.user_ids, "user")
    k = check_positive_integer("k", k)
    top: list[TopKUsers] = []
    unknown: list[int | str] = []
    for block in graphs.blocks(len(user), graphs.manifest.num_users):
        cosines, known = _scan(graphs, "similar_users", ("similarity",), "user", user[block])
        unknown += user[block][~known].tolist()
        if not unknown:
            indices, counts = top_k_indices(cosines, k)
            for row, count in enumerate(counts):
                best = indices[row, :count]
                top.append(TopKUsers(_ids_at(graphs, best), cosines[row, best]))
    _check_known("similar_users", "user", unknown, len(user), is_single)
    return top[0] if is_single else top


def audience(
    graphs: GraphSessions,
    catalogue: Callable[[], Catalogue],
    items: RawId | RawIds,
    k: int,
    *,
    exclude_seen: bool | None = None,
) -> TopKUsers | list[TopKUsers]:
    """Implement :meth:`cflightning_serve.Scorer.audience`; ``catalogue`` returns the bundle's catalogue."""
    manifest = graphs.manifest
    item, is_single = to_id_array(items, manifest.item_ids, "item")
    k = check_positive_integer("k", k)
    without_seen = manifest.seen_graph is not None if exclude_seen is None else exclude_seen
    if without_seen and manifest.seen_graph is None:
        graphs.open("seen")  # raises the error
    top: list[TopKUsers] = []
    unknown: list[int | str] = []
    for block in graphs.blocks(len(item), manifest.num_users):
        order, score, known = _scan(graphs, "audience", ("order", "score"), "item", item[block])
        unknown += item[block][~known].tolist()
        if unknown:
            continue
        if without_seen:
            places = catalogue().indices(item[block]).tolist()
            selected = [_best_unseen(graphs, row, place, k) for row, place in zip(order, places, strict=True)]
        else:
            indices, counts = top_k_indices(order, k)
            selected = [index[:count] for index, count in zip(indices, counts, strict=True)]
        top += [TopKUsers(_ids_at(graphs, best), row[best]) for row, best in zip(score, selected, strict=True)]
    _check_known("audience", "item", unknown, len(item), is_single)
    return top[0] if is_single else top


def _scan(graphs: GraphSessions, graph: str, outputs: tuple[str, ...], name: str, ids: IdArray) -> list[Array]:
    """Run a graph over all users, block after block.

    Returns:
        The outputs, float32 [n, users] each, and whether the ids are known: bool [n].
    """
    num_users = graphs.manifest.num_users - 1
    step = max(1, min(CACHED_ELEMENTS, graphs.block_size) // (graphs.manifest.dim + len(ids)))
    every = [np.empty((len(ids), num_users), np.float32) for _ in outputs]
    known: Array = np.ones(len(ids), bool)
    for begin in range(0, max(num_users, 1), step):
        users = slice(begin, begin + step)
        inputs = {name: ids, "begin": np.array([begin]), "end": np.array([begin + step])}
        *arrays, known = graphs.run(graph, (*outputs, "known"), inputs)
        for target, array in zip(every, arrays, strict=True):
            target[:, users] = array
    return [*every, known]


def _best_unseen(graphs: GraphSessions, order: npt.NDArray[np.float32], place: int, k: int) -> npt.NDArray[np.int64]:
    """Return the best users who have not seen an item, best first: at most ``k`` indices.

    The seen items are read of the best users only, of ever more until ``k`` of them have not seen the item.

    Args:
        graphs: the bundle's graphs.
        order: float32 [users], sort keys.
        place: catalogue index of the item.
        k: number of users, at least 1.
    """
    unseen: list[npt.NDArray[np.int64]] = []
    checked, depth = 0, 2 * k + 16
    while True:
        indices, counts = top_k_indices(order[None], depth)
        ranked = indices[0, : counts[0]]
        for begin in range(checked, len(ranked), USERS_PER_LOOKUP):
            users = ranked[begin : begin + USERS_PER_LOOKUP]
            places, position = run_seen(graphs, "place", _ids_at(graphs, users))
            unseen.append(np.delete(users, position[places == place]))
        checked = len(ranked)
        if sum(map(len, unseen)) >= k or checked == len(order):
            return np.concatenate([*unseen, np.empty(0, np.int64)])[:k]
        depth *= 4


def _ids_at(graphs: GraphSessions, indices: npt.NDArray[np.int64]) -> IdArray:
    """Return the ids of users by their index in :meth:`cflightning_serve.Scorer.users`."""
    if len(indices) * READ_ALL_FROM[graphs.manifest.user_ids] >= graphs.manifest.num_users:
        return user_ids(graphs)[indices]
    return np.concatenate(
        [user_ids(graphs, index, index + 1) for index in indices.tolist()] or [user_ids(graphs, 0, 0)]
    )


def _check_known(method: str, name: str, unknown: Sequence[int | str], count: int, is_single: bool) -> None:
    if unknown:
        some = f"{len(unknown)} of {count} were not seen in training: {', '.join(map(repr, unknown[:3]))}"
        got = f"{unknown[0]!r} was not seen in training" if is_single else some
        raise UnknownIdError(f"{method}: {name}s must be known, {got}; check them with knows_{name}")
