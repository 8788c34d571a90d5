"""Graphs ``seen``, ``history`` and ``users``: seen items, ratings of the training part and ids of the known users."""

import numpy as np
import numpy.typing as npt

from cflightning_serve.bundle.ids import IdArray, RawId, to_id_array
from cflightning_serve.bundle.sessions import Array, GraphSessions
from cflightning_serve.errors import InputError


def run_seen(graphs: GraphSessions, output: str, user: IdArray) -> tuple[Array, npt.NDArray[np.int64]]:
    """Return the seen items of users.

    Args:
        graphs: the bundle's graphs.
        output: "item" for raw ids, or "place" for catalogue indices.
        user: ids [n].

    Returns:
        The output [m], and for each seen item the index of its user in ``user``: int64 [m].

    Raises:
        UnsupportedError: the bundle does not have the seen items.
    """
    items, position = graphs.run(graphs.manifest.seen_graph or "seen", (output, "position"), {"user": user})
    return items, position


def user_history(graphs: GraphSessions, user: RawId) -> tuple[IdArray, npt.NDArray[np.float32]]:
    """Implement :meth:`cflightning_serve.Scorer.history`."""
    user_id, is_single = to_id_array(user, graphs.manifest.user_ids, "user")
    if not is_single:
        raise InputError(f"history: user must be one id, got an array of {len(user_id)}")
    items, ratings = graphs.run("history", ("item", "rating"), {"user": user_id})
    return items, ratings


def user_ids(graphs: GraphSessions, begin: int = 0, end: int | None = None) -> IdArray:
    """Implement :meth:`cflightning_serve.Scorer.users`."""
    end = graphs.manifest.num_users if end is None else end
    return graphs.run("users", ("user",), {"begin": np.array([begin]), "end": np.array([end])})[0]
