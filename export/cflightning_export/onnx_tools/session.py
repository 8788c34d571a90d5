"""Asking the graphs of a bundle, and holding their answers against others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch

from cflightning.data.ids import Ids
from cflightning.errors import ExportError
from cflightning.models.network import RatingNetwork

TOLERANCE = 1e-5
"""Of the rating range; of the largest score, where there is none; of 1, for cosines."""


def open_graph(path: Path) -> Any:
    """A session of onnxruntime on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # onnxruntime's own choice hangs in some containers
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def ask(session: Any, case: str, inputs: dict[str, np.ndarray]) -> Any:
    """All outputs of a graph; `case` is what an error names.

    Raises:
        ExportError: the graph fails.
    """
    try:
        return session.run(None, inputs)
    except Exception as error:  # onnxruntime's errors share no public base
        raise ExportError(f"{case}: onnxruntime cannot answer ({error}); this is a bug, please report it") from error


def raw_ids(known: Ids, rows: np.ndarray) -> np.ndarray:
    """Raw ids of rows: int64 [n] or object [n] of str; row 0 becomes an id that is not known."""
    ids: np.ndarray = known.values[np.maximum(rows, 1) - 1]
    ids[rows == 0] = unknown_id(known)
    return ids


def unknown_id(known: Ids) -> int | str:
    """An id beside the known ones, of which there is at least one."""
    values = known.values
    if known.kind == "string":
        return str(values[-1]) + "?"  # sorts behind the last one, so it is none of them
    if int(values[-1]) < np.iinfo(np.int64).max:
        return int(values[-1]) + 1
    gaps = np.flatnonzero(values[:-1] + 1 != values[1:])
    return int(values[gaps[-1]]) + 1 if len(gaps) else int(values[0]) - 1


def tolerance_of(network: RatingNetwork) -> float:
    """What a score may be off by."""
    if network.rating_range is not None:
        low, high = network.rating_range
        return TOLERANCE * max(high - low, 1.0)
    some = torch.linspace(0, network.num_users - 1, min(network.num_users, 20)).long()
    return TOLERANCE * float(network.catalogue(some).abs().max())


def compare(graph: str, case: str, actual: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    """Hold answers, float [any shape], against what they must be; -inf agrees with -inf alone.

    Raises:
        ExportError: they differ, with the place where they do so most.
    """
    if actual.shape != expected.shape:
        raise ExportError(f"{graph}, {case}: must have shape {expected.shape}, got {actual.shape}")
    both = np.isneginf(actual) & np.isneginf(expected)
    off = np.abs(np.where(both, 0, actual) - np.where(both, 0, expected))
    if off.size and not off.max() <= tolerance:  # also refuses NaN
        at = np.unravel_index(np.nanargmax(np.nan_to_num(off, nan=np.inf)), off.shape)
        raise ExportError(
            f"{graph}, {case}: must agree with torch within {tolerance:.1e}, "
            f"got {actual[at]:.6f} for {expected[at]:.6f}; this is a bug, please report it"
        )
