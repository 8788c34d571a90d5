"""What scores were like when the bundle was written: ``manifest.reference``, which a server measures drift against."""

import itertools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

SCORED = ("score", "recommend")
"""Questions whose scores the manifest may describe."""
_FLOAT32 = 3.4028234663852886e38


class Reference(NamedTuple):
    """The spread of the scores of one question, in bins that hold about a tenth each.

    Bin ``i`` holds the scores above ``edges[i - 1]`` and up to ``edges[i]``; the first and the last one are open.
    """

    edges: tuple[float, ...]
    """Ascending, at least one; in the unit of the scores."""
    shares: tuple[float, ...]
    """One more than edges; they sum to one."""
    k: int
    """Length of the lists that the scores come from; 1 for pairs."""


def parse_reference(raw: object) -> Mapping[str, Reference]:
    """Question -> spread of its scores; none where the manifest has none.

    Raises:
        ValueError: says what must hold.
    """
    if raw is None:
        return {}
    if type(raw) is not dict:
        raise ValueError("an object or null")
    return {question: _parse_one(raw[question]) for question in SCORED if question in raw}


def _parse_one(raw: Any) -> Reference:
    must = '{"edges": ascending numbers, "shares": one more number, from 0 and 1 in sum, "k": integer from 1}'
    if type(raw) is not dict:
        raise ValueError(must)
    edges, shares, k = raw.get("edges"), raw.get("shares"), raw.get("k")
    if type(edges) is not list or type(shares) is not list or type(k) is not int:
        raise ValueError(must)
    fits = (
        all(type(one) in (int, float) and abs(one) <= _FLOAT32 for one in [*edges, *shares])
        and len(shares) == len(edges) + 1 > 1
        and all(low < high for low, high in itertools.pairwise(edges))
        and all(0 <= share <= 1 for share in shares)
        and math.isclose(sum(shares), 1, abs_tol=1e-3)
        and 1 <= k < 2**63
    )
    if not fits:
        raise ValueError(must)
    return Reference(tuple(map(float, edges)), tuple(map(float, shares)), k)
