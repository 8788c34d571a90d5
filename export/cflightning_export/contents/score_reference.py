"""Distribution of the scores of a bundle, for its manifest: a server compares the scores that it serves with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cflightning.data.vocabulary import Vocabulary
from cflightning_export.contents.seen_items import SeenRows
from cflightning_export.onnx_tools.session import GraphSession, ids_of

NUM_BINS = 10
NUM_PAIRS, NUM_USERS = 10_000, 1_000
"""Random pairs that are scored, and random users who get recommendations."""
K = 10
"""Length of the recommendations: the default of requests."""

Distribution = dict[str, list[float] | int]


def score_reference(folder: Path, vocabulary: Vocabulary, seen: SeenRows | None) -> dict[str, Distribution]:
    """Run `score` and `recommend` for random known ids, and describe the scores by their deciles.

    Users are drawn uniformly, since the distribution of requests is unknown; seen items are excluded if the bundle
    excludes them.

    Args:
        folder: folder with the graphs.
        vocabulary: ids of users and items.
        seen: rows of the users, if the bundle has them.

    Returns:
        Graph -> `edges` (ascending; the outer bins are open), `shares` of the bins, and `k`: of `score` for random
        pairs, k = 1; of `recommend` for the best k items, at most ten.
    """
    rng = np.random.default_rng(0)
    users, items = vocabulary.users.num_embeddings, vocabulary.items.num_embeddings
    user, item = (
        ids_of(ids, rng.integers(1, ids.num_embeddings, NUM_PAIRS)) for ids in (vocabulary.users, vocabulary.items)
    )
    scores = GraphSession(folder, "score").run("random pairs", user=user, item=item)["score"]
    k = min(K, items - 1)
    recommend = GraphSession(folder, "recommend")
    lists = []
    for index in rng.permutation(np.arange(1, users))[:NUM_USERS].tolist():  # a batch would hold a catalogue for each
        known = np.empty(0, np.int32) if seen is None else seen.item[seen.of(index)]
        best = recommend.run(
            "random users",
            user=vocabulary.users.values[index - 1 : index],
            k=np.array([k], np.int64),
            exclude_user=np.zeros(len(known), np.int64),
            exclude_item=vocabulary.items.values[known - 1],
        )["score"][0]
        if best[-1] > -np.inf:  # shorter lists are not comparable
            lists.append(best)
    reference: dict[str, Distribution] = {"score": {**deciles(scores), "k": 1}}
    return reference | {"recommend": {**deciles(np.concatenate(lists)), "k": k}} if lists else reference


def deciles(scores: NDArray[np.float32]) -> Distribution:
    """Return the deciles of scores, float32 [n], n > 0, and the shares of the bins between distinct deciles."""
    # Edges are scores themselves, which float32 represents.
    edges = np.unique(np.quantile(scores, np.arange(1, NUM_BINS) / NUM_BINS, method="inverted_cdf"))
    counts = np.bincount(np.searchsorted(edges, scores), minlength=len(edges) + 1)
    return {"edges": edges.tolist(), "shares": (counts / len(scores)).tolist()}
