"""onnxruntime sessions of a bundle's graphs, and the comparison of their outputs with expected values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch

from cflightning.data.ids import Ids
from cflightning.errors import ExportError
from cflightning.models.network import ScoringNetwork

TOLERANCE = 1e-5
"""Largest error, as a share of the rating range, of the largest score if there is no range, or of 1 for cosines."""


class GraphSession:
    """A graph of a bundle, run on one thread.

    Args:
        folder: folder of the bundle.
        name: name of the graph.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.file = f"{name}.onnx"
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # the default hangs in some containers
        options.log_severity_level = 3
        self._session = ort.InferenceSession(folder / self.file, options, providers=["CPUExecutionProvider"])
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, case: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Run a graph; return name -> output.

        Raises:
            ExportError: the graph fails; the message names the case.
        """
        try:
            return dict(zip(self._outputs, self._session.run(None, inputs), strict=True))
        except Exception as error:  # onnxruntime's errors share no public base
            raise ExportError(
                f"{self.file}, {case}: onnxruntime cannot answer ({error}); this is a bug, please report it"
            ) from error

    def check_close(self, case: str, actual: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
        """Compare floats of any shape; -inf equals -inf alone, and NaN nothing.

        Raises:
            ExportError: they differ; the message has the largest difference.
        """
        if actual.shape != expected.shape:
            raise ExportError(f"{self.file}, {case}: must have shape {expected.shape}, got {actual.shape}")
        fillers = np.isneginf(actual) & np.isneginf(expected)
        error = np.abs(np.where(fillers, 0, actual) - np.where(fillers, 0, expected))
        if error.size and not error.max() <= tolerance:  # true of NaN as well
            worst = np.unravel_index(np.nanargmax(np.nan_to_num(error, nan=np.inf)), error.shape)
            raise ExportError(
                f"{self.file}, {case}: must agree with torch within {tolerance:.1e}, "
                f"got {actual[worst]:.6f} for {expected[worst]:.6f}; this is a bug, please report it"
            )

    def check_equal(self, case: str, what: str, actual: np.ndarray, expected: np.ndarray) -> None:
        """Compare ids, indices or flags.

        Raises:
            ExportError: they differ.
        """
        if not np.array_equal(actual, expected):
            raise ExportError(
                f"{self.file}, {case}: {what} differ from those of the vocabulary or the data; "
                "this is a bug, please report it"
            )


def ids_of(known: Ids, index: np.ndarray) -> np.ndarray:
    """Return the ids of indices: int64 [n] or object [n] of str; index 0 gives an unknown id."""
    ids: np.ndarray = known.values[np.maximum(index, 1) - 1]
    ids[index == 0] = unknown_id(known)
    return ids


def unknown_id(known: Ids) -> int | str:
    """Return an id that is not among the known ones, of which there must be at least one."""
    values = known.values
    if known.kind == "string":
        return str(values[-1]) + "?"  # sorts after the last one, so it is none of them
    if int(values[-1]) < np.iinfo(np.int64).max:
        return int(values[-1]) + 1
    gaps = np.flatnonzero(values[:-1] + 1 != values[1:])
    return int(values[gaps[-1]]) + 1 if len(gaps) else int(values[0]) - 1


def score_tolerance(network: ScoringNetwork) -> float:
    """Return the error that a score of a network may have."""
    if network.rating_range is not None:
        low, high = network.rating_range
        return TOLERANCE * max(high - low, 1.0)
    some = torch.linspace(0, network.num_users - 1, min(network.num_users, 20)).long()
    return TOLERANCE * float(network.catalogue(some).abs().max())
