"""``TopK``: the best of something."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cflightning_serve.bundle.ids import IdArray


class TopK(NamedTuple):
    """The best items for a user, or the nearest items of an item, best first."""

    items: IdArray
    """int64 [k'] or object [k'] of str, raw ids; k' is smaller than k where the catalogue has no more."""
    scores: npt.NDArray[np.float32]
    """float32 [k'], descending unless diversity was asked for: cosines for similar items; for recommendations what
    ``manifest.units["recommend"]`` says, rating units or scores without a unit ("choice"), of which only the order
    means something."""


def drop_fillers(items: IdArray, scores: npt.NDArray[np.float32]) -> TopK:
    """What a graph gives for one row, without the places that it could not fill."""
    if len(scores) and scores[-1] == -np.inf:  # they stand last
        kept = int(np.count_nonzero(scores > -np.inf))
        return TopK(items[:kept], scores[:kept])
    return TopK(items, scores)


def number(value: np.floating[Any]) -> float:
    """Turn a float32 into the float with the fewest digits that still names it: 4.1 instead of 4.099999904632568."""
    return float(str(value))
