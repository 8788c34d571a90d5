"""What the scores of a bundle are like: written into its manifest, so that a server can tell when they change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cflightning.data.vocabulary import Vocabulary
from cflightning_export.contents.seen_items import SeenRows
from cflightning_export.onnx_tools.session import ask, open_graph, raw_ids

BINS = 10
PAIRS = 10_000
USERS = 1_000
K = 10  # what is asked for where nobody says how many


def reference(folder: Path, vocabulary: Vocabulary, seen: SeenRows | None = None, seed: int = 0) -> dict[str, Any]:
    """Ask the graphs about random known ids and describe the scores by their deciles.

    Users are drawn evenly, since who asks often is not known here; what they have seen is left out, where the bundle
    leaves it out.

    Args:
        folder: with the graphs.
        vocabulary: ids of the rows.
        seen: the rows of users, where the bundle has them.
        seed: of the draws.

    Returns:
        Question -> `edges` (ascending; the outer bins are open), `shares` of the bins, and `k`: of `score` on
        random pairs, k = 1; of `recommend` on the lists of the best k items, at most ten.
    """
    rng = np.random.default_rng(seed)
    users, items = vocabulary.users.num_rows, vocabulary.items.num_rows
    pairs = {
        "user": raw_ids(vocabulary.users, rng.integers(1, users, PAIRS)),
        "item": raw_ids(vocabulary.items, rng.integers(1, items, PAIRS)),
    }
    scores = ask(open_graph(folder / "score.onnx"), "score.onnx, random pairs", pairs)[0]
    k = min(K, items - 1)
    recommend = open_graph(folder / "recommend.onnx")
    lists = []
    for row in rng.permutation(np.arange(1, users))[:USERS].tolist():  # a block would hold a catalogue for each
        known = np.empty(0, np.int32) if seen is None else seen.item[seen.of(row)]
        feeds = {
            "user": vocabulary.users.values[row - 1 : row],
            "k": np.array([k], np.int64),
            "exclude_user": np.zeros(len(known), np.int64),
            "exclude_item": vocabulary.items.values[known - 1],
        }
        best = ask(recommend, "recommend.onnx, random users", feeds)[1][0]
        if best[-1] > -np.inf:  # a shorter list does not compare
            lists.append(best)
    found: dict[str, Any] = {"score": {**spread(scores), "k": 1}}
    return found | {"recommend": {**spread(np.concatenate(lists)), "k": k}} if lists else found


def spread(scores: npt.NDArray[np.float32]) -> dict[str, list[float]]:
    """Deciles of scores, float32 [n], n > 0, and the shares of the bins between them; equal deciles are one."""
    deciles = np.quantile(scores, np.arange(1, BINS) / BINS, method="inverted_cdf")  # scores themselves: float32
    edges = np.unique(deciles)
    counts = np.bincount(np.searchsorted(edges, scores), minlength=len(edges) + 1)
    return {"edges": edges.tolist(), "shares": (counts / len(scores)).tolist()}
