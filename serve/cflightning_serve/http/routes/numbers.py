"""Numbers of answers: finite, or there is no answer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from cflightning_serve.http.errors import not_finite
from cflightning_serve.inference import results


def number(value: np.floating[Any]) -> float:
    """Turn a float32 into the float with the fewest digits that names it.

    Raises:
        Refusal: it is NaN or infinite, which JSON does not have.
    """
    if not math.isfinite(value):
        raise not_finite()
    return results.number(value)


def numbers(values: npt.NDArray[np.floating[Any]]) -> list[float]:
    """Turn float32 [n] into floats.

    Raises:
        Refusal: one of them is NaN or infinite.
    """
    given = list(map(results.number, values))
    if not math.isfinite(sum(given)):  # float32 cannot fill a float64
        raise not_finite()
    return given
