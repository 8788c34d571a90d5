"""Graphs ``similar`` and ``factors``: items by cosine similarity, and vectors of items."""

import numpy as np
import numpy.typing as npt

from cflightning_serve.bundle.ids import RawId, RawIds, check_positive_integer, to_id_array
from cflightning_serve.bundle.sessions import GraphSessions
from cflightning_serve.errors import UnknownIdError
from cflightning_serve.inference.results import TopK, drop_fillers


def similar_items(graphs: GraphSessions, items: RawId | RawIds, k: int) -> TopK | list[TopK]:
    """Implement :meth:`cflightning_serve.Scorer.similar_items`."""
    item, is_single = to_id_array(items, graphs.manifest.item_ids, "item")
    num_items = graphs.manifest.num_items
    length = np.array([min(check_positive_integer("k", k), num_items)])
    top: list[TopK] = []
    unknown: list[int | str] = []
    for block in graphs.blocks(len(item), num_items):
        similar, cosines, known = graphs.run(
            "similar", ("similar", "similarity", "known"), {"item": item[block], "k": length}
        )
        unknown += item[block][~known].tolist()
        top.extend(map(drop_fillers, similar, cosines))
    if unknown:
        some = f"{len(unknown)} of {len(item)} were not seen in training: {', '.join(map(repr, unknown[:3]))}"
        got = f"{unknown[0]!r} was not seen in training" if is_single else some
        raise UnknownIdError(f"similar_items: items must be known, {got}; check them with knows_item")
    return top[0] if is_single else top


def item_factors(graphs: GraphSessions, items: RawId | RawIds) -> npt.NDArray[np.float32]:
    """Implement :meth:`cflightning_serve.Scorer.factors`."""
    item, is_single = to_id_array(items, graphs.manifest.item_ids, "item")
    vectors: npt.NDArray[np.float32] = graphs.run("factors", ("vector",), {"item": item})[0]
    return vectors[0] if is_single else vectors
