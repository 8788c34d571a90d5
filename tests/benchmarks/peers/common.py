"""Shared code of the runners: recipes, the split on disk, and the measurement. Runs in each library's environment."""

import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SHORT = 5.0
"""Fits below this many seconds are repeated, and the median is reported."""


@dataclass(frozen=True)
class Recipe:
    """A configuration of a library.

    Attributes:
        name: name in the table.
        options: options of the library, without the epochs.
        epochs: passes over the ratings (or iterations).
        data: protocols of the recipe; None for all.
        slow: protocols that take minutes and require `--slow`.
        warning: remark in the table.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    epochs: int = 0
    data: tuple[str, ...] | None = None
    slow: tuple[str, ...] = ()
    warning: str = ""


class Part(NamedTuple):
    """Rows of a part; users and items are numbered from 0 over both parts."""

    user: np.ndarray
    item: np.ndarray
    rating: np.ndarray


class Split(NamedTuple):
    """Both parts of a protocol, its size, and its lowest and highest rating."""

    train: Part
    test: Part
    users: int
    items: int
    scale: tuple[float, float]


def read_split(path: Path) -> Split:
    """Read a file of `split.py`."""
    with np.load(path) as file:
        train, test = (Part(*(file[f"{part}_{column}"] for column in Part._fields)) for part in ("train", "test"))
        low, high = file["scale"].tolist()
        return Split(train, test, int(file["users"]), int(file["items"]), (low, high))


def rmse(predicted: np.ndarray, rating: np.ndarray, scale: tuple[float, float]) -> float:
    """Return the test error with predictions clipped to the rating scale."""
    if not np.isfinite(predicted).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(predicted))} predictions are not finite")
    return float(np.sqrt(np.mean((np.clip(predicted, *scale) - rating) ** 2)))


def growing(limit: int, coarse: bool = False) -> Iterator[int]:
    """Yield growing numbers of epochs to try, in larger steps for long fits."""
    steps = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100, 150, 200, 300)
    yield from (step for step in (steps[::4] if coarse else steps) if step < limit)
    yield limit


def memory_now() -> float:
    """Return the resident memory in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def memory_peak() -> float:
    """Return the peak resident memory in MiB (ru_maxrss is KiB on Linux and bytes on macOS)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def measure(
    fit: Callable[[int], Any],
    error: Callable[[Any], float | None],
    *,
    epochs: int,
    target: float | None,
    repeats: int,
) -> dict[str, Any]:
    """Time `fit(epochs)`, then search for the shortest fit that reaches the target.

    Args:
        fit: trains a new model and returns it.
        error: returns the test RMSE of a model, or None if it predicts no ratings.
        epochs: epochs of the recipe.
        target: RMSE to reach, or None to skip the search.
        repeats: number of short fits, whose median is reported.
    """

    def timed(count: int) -> tuple[float, Any]:
        start = time.perf_counter()
        model = fit(count)
        return time.perf_counter() - start, model

    def median(first: float, count: int) -> float:
        again = range(repeats - 1) if first < SHORT else ()
        return statistics.median([first, *(timed(count)[0] for _ in again)])

    found: dict[str, Any] = {"memory_before": memory_now()}
    seconds, model = timed(epochs)
    found |= {"memory_peak": memory_peak(), "rmse": error(model), "seconds": median(seconds, epochs)}
    if target is not None and found["rmse"] is not None:
        found["reached"] = None
        for count in growing(epochs, coarse=found["seconds"] > 4 * SHORT):
            seconds, model = timed(count)
            if error(model) <= target:
                found["reached"] = {"epochs": count, "seconds": median(seconds, count)}
                break
    return found
