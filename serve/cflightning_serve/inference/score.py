"""Graph ``score``: scores of (user, item) pairs, and whether ids were seen in training."""

import numpy as np
import numpy.typing as npt

from cflightning_serve.bundle.ids import IdArray, RawId, RawIds, to_id_array
from cflightning_serve.bundle.manifest import IdType
from cflightning_serve.bundle.sessions import Array, GraphSessions
from cflightning_serve.errors import InputError


def score_pairs(graphs: GraphSessions, users: RawId | RawIds, items: RawId | RawIds) -> float | npt.NDArray[np.float32]:
    """Implement :meth:`cflightning_serve.Scorer.score`."""
    user, is_single_user = to_id_array(users, graphs.manifest.user_ids, "user")
    item, is_single_item = to_id_array(items, graphs.manifest.item_ids, "item")
    if is_single_user and not is_single_item:
        user = user.repeat(len(item))
    elif is_single_item and not is_single_user:
        item = item.repeat(len(user))
    elif len(user) != len(item):
        raise InputError(
            f"score: users and items must be pairs, got {len(user)} users and {len(item)} items; "
            "give arrays of equal length, or one id and an array"
        )
    scores = _run(graphs, "score", user, item)
    return float(scores[0]) if is_single_user and is_single_item else scores


def known_users(graphs: GraphSessions, users: RawId | RawIds) -> bool | npt.NDArray[np.bool_]:
    """Implement :meth:`cflightning_serve.Scorer.knows_user`."""
    user, is_single = to_id_array(users, graphs.manifest.user_ids, "user")
    known = _run(graphs, "known", user, _placeholders(graphs.manifest.item_ids, len(user)))[:, 0]
    return bool(known[0]) if is_single else known


def known_items(graphs: GraphSessions, items: RawId | RawIds) -> bool | npt.NDArray[np.bool_]:
    """Implement :meth:`cflightning_serve.Scorer.knows_item`."""
    item, is_single = to_id_array(items, graphs.manifest.item_ids, "item")
    known = _run(graphs, "known", _placeholders(graphs.manifest.user_ids, len(item)), item)[:, 1]
    return bool(known[0]) if is_single else known


def _run(graphs: GraphSessions, output: str, user: IdArray, item: IdArray) -> Array:
    """Run the graph in blocks that bound the size of the gathered factors; return one output [n, ...]."""
    parts = [
        graphs.run("score", (output,), {"user": user[block], "item": item[block]})[0]
        for block in graphs.blocks(len(user), 2 * graphs.manifest.dim)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _placeholders(id_type: IdType, count: int) -> IdArray:
    """Return ids, known or unknown, for the side of the pairs whose result is not used."""
    return np.zeros(count, np.int64) if id_type == "int64" else np.full(count, "", object)
