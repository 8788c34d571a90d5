"""The loaded bundle: its scorer, and caches and score distributions that live as long as it."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

from cflightning_serve import Scorer
from cflightning_serve.http.json_encoding import encode_json
from cflightning_serve.http.serving.drift import ScoreDistribution

_MAX_CACHED = 1 << 17
"""Cached users (about 10 MB) and cached items (about 20 MB)."""


class LoadedBundle:
    """A bundle with all graphs open.

    Args:
        scorer: scorer of the bundle.

    Attributes:
        version: first digits of the manifest's digest.
        loaded_at: seconds since 1970.
        score_distributions: graph -> distribution of its served scores, where the manifest has a reference.
    """

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer
        self.version = scorer.manifest.sha256[:12]
        self.loaded_at = time.time()
        self.score_distributions = {
            graph: ScoreDistribution(reference) for graph, reference in scorer.manifest.reference.items()
        }
        self._known_users: set[int | str] = set()
        self._item_prefixes: dict[int | str, str] = {}

    def knows_user(self, user: int | str) -> bool:
        """Return whether training has seen a user. Cached, since a lookup takes half as long as a recommendation."""
        if user in self._known_users:
            return True
        known = self.scorer.knows_user(user)
        if known and len(self._known_users) < _MAX_CACHED:
            self._known_users.add(user)
        return known

    def add_scores(self, graph: str, scores: npt.NDArray[np.float32]) -> None:
        """Add the scores of a response, float32 [n], to their distribution."""
        distribution = self.score_distributions.get(graph)
        if distribution is not None:
            distribution.add(scores)

    def item_prefix(self, item: int | str) -> str:
        """Return the JSON object of an item and its title up to the value of ``score``; cached."""
        prefix = self._item_prefixes.get(item)
        if prefix is None:
            prefix = f'{{"item":{encode_json(item)},"title":{encode_json(self.scorer.title(item))},"score":'
            if len(self._item_prefixes) < _MAX_CACHED:
                self._item_prefixes[item] = prefix
        return prefix
