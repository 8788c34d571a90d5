"""Reference distributions of scores at export, ``reference`` in the manifest; a server measures drift against them."""

import itertools
import math
from collections.abc import Mapping
from typing import NamedTuple

SCORED_GRAPHS = ("score", "recommend")
"""Graphs that return scores: the keys of ``units`` and ``reference`` in a manifest."""
FLOAT32_MAX = 3.4028234663852886e38


class Reference(NamedTuple):
    """Histogram of the scores of one graph, with about a tenth of the scores in each bin.

    Bin ``i`` holds the scores above ``edges[i - 1]`` and up to ``edges[i]``; the first and the last bin are open.
    """

    edges: tuple[float, ...]
    """Ascending, at least one; in the unit of the scores."""
    shares: tuple[float, ...]
    """Share of the scores in each bin; one more than edges, with sum 1."""
    k: int
    """Length of the top-k lists that the scores come from; 1 for pairs."""


def parse_reference(raw: object) -> Mapping[str, Reference]:
    """Parse ``reference``: graph -> histogram of its scores; empty if the manifest has none.

    Raises:
        ValueError: the value is invalid; the message has the requirement.
    """
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise ValueError("an object or null")
    return {graph: _parse_histogram(raw[graph]) for graph in SCORED_GRAPHS if graph in raw}


def _parse_histogram(raw: object) -> Reference:
    must = '{"edges": ascending numbers, "shares": one more number, from 0 and 1 in sum, "k": integer from 1}'
    if not isinstance(raw, dict):
        raise ValueError(must)
    edges, shares, k = raw.get("edges"), raw.get("shares"), raw.get("k")
    if type(edges) is not list or type(shares) is not list or type(k) is not int:
        raise ValueError(must)
    valid = (
        all(type(value) in (int, float) and abs(value) <= FLOAT32_MAX for value in [*edges, *shares])
        and len(shares) == len(edges) + 1 > 1
        and all(low < high for low, high in itertools.pairwise(edges))
        and all(0 <= share <= 1 for share in shares)
        and math.isclose(sum(shares), 1, abs_tol=1e-3)
        and 1 <= k < 2**63
    )
    if not valid:
        raise ValueError(must)
    return Reference(tuple(map(float, edges)), tuple(map(float, shares)), k)
