"""Numbers of answers: finite, or there is no answer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from cflightning_serve import output
from cflightning_serve.http.errors import Refusal


def number(value: np.floating[Any]) -> float:
    """Turn a float32 into the float with the fewest digits that names it.

    Raises:
        Refusal: it is NaN or infinite, which JSON does not have.
    """
    if not math.isfinite(value):
        raise not_finite()
    return output.number(value)


def numbers(values: npt.NDArray[np.floating[Any]]) -> list[float]:
    """Turn float32 [n] into floats.

    Raises:
        Refusal: one of them is NaN or infinite.
    """
    if not np.isfinite(values).all():
        raise not_finite()
    return list(map(output.number, values))


def not_finite() -> Refusal:
    """Say that there is no answer: the bundle's tables, or what they meet in this question, hold no finite numbers."""
    return Refusal(422, "not_finite", "the bundle's answer to this question is no finite number; export it again")
