"""Top-k results."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cflightning_serve.bundle.ids import IdArray


class TopK(NamedTuple):
    """Items with the highest scores for a user, or with the highest similarity to an item, best first."""

    items: IdArray
    """int64 [k'] or object [k'] of str, raw ids; k' is smaller than k if the catalogue has no more items."""
    scores: npt.NDArray[np.float32]
    """float32 [k'], descending unless diversity was requested. For similar items cosines; for recommendations scores in
    the unit ``manifest.units["recommend"]``: rating units, or none ("choice"), when only their order has a meaning."""


class TopKUsers(NamedTuple):
    """Users with the highest similarity to a user, or with the highest scores of an item, best first."""

    users: IdArray
    """int64 [k'] or object [k'] of str, raw ids; k' is smaller than k if there are no more users."""
    scores: npt.NDArray[np.float32]
    """float32 [k'], descending. For similar users cosines; for an audience scores as those of recommendations."""


def drop_fillers(items: IdArray, scores: npt.NDArray[np.float32]) -> TopK:
    """Drop the fillers at the end of a top-k list, which have the score -inf."""
    if len(scores) and scores[-1] == -np.inf:
        count = int(np.count_nonzero(scores > -np.inf))
        return TopK(items[:count], scores[:count])
    return TopK(items, scores)


def shortest_float(value: np.float32) -> float:
    """Convert a float32 to the float with the fewest digits that rounds to it: 4.1 instead of 4.099999904632568."""
    return float(str(value))
