"""JSON of responses: compact text, and finite numbers only."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from cflightning_serve.http.errors import not_finite_error
from cflightning_serve.inference import results

JsonObject = dict[str, Any]
"""A JSON object, such as an OpenAPI document."""
encode_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
"""Encode a value as JSON without spaces; NaN and infinity raise ``ValueError``."""
_BLOCK = 256
"""List elements that are encoded in one call, less than a millisecond: other threads cannot run during a call."""


def encode_list(elements: Iterable[object]) -> str:
    """Encode a long list block by block, so that other threads run in between. Elements may be generated lazily."""
    remaining, blocks = iter(elements), []
    while block := list(islice(remaining, _BLOCK)):
        blocks.append(encode_json(block)[1:-1])
    return f"[{','.join(blocks)}]"


def finite_number(value: np.floating) -> float:
    """Convert a float32 to the float with the fewest digits that rounds to it.

    Raises:
        ApiError: the value is NaN or infinite, which JSON cannot express.
    """
    if not math.isfinite(value):
        raise not_finite_error()
    return results.shortest_float(value)


def finite_numbers(values: npt.NDArray[np.floating]) -> list[float]:
    """Convert float32 [n] to floats with the fewest digits.

    Raises:
        ApiError: a value is NaN or infinite.
    """
    numbers = list(map(results.shortest_float, values))
    if not math.isfinite(sum(numbers)):  # a sum of finite float32 values cannot overflow float64
        raise not_finite_error()
    return numbers
