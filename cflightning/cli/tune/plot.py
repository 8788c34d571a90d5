"""The picture of a search, drawn if matplotlib is installed (extra `plots`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cflightning.cli.tune.ranges import Value
from cflightning.utils.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, RED, GREY = "#1f5a99", "#c8501e", "0.5"


def draw_search(
    values: np.ndarray,
    complete: np.ndarray,
    params: Mapping[str, Sequence[Value | None]],
    log_scale: Set[str],
    path: Path,
    title: str = "val RMSE",
    lower_is_better: bool = True,
) -> bool:
    """Draw the goal metric by trial, with the best so far, and against every parameter.

    Args:
        values: float [trials], the metric by trial, the defaults first; NaN for a trial without one.
        complete: bool [trials], whether a trial is complete; the others are drawn hollow.
        params: Name -> number or word of each trial; None where it is not known.
        log_scale: Names of the parameters with a logarithmic axis.
        path: The picture (svg), which is replaced in one step.
        title: Name of the metric.
        lower_is_better: Direction of the metric.

    Returns:
        Whether it was drawn; False without matplotlib or without a complete trial.
    """
    sign = 1 if lower_is_better else -1
    costs = sign * values
    finished = costs[complete]
    if find_spec("matplotlib") is None or not len(finished):
        return False
    from matplotlib.figure import Figure
    from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullFormatter

    columns = 2 if len(params) in (2, 4) else 3
    rows = -(-len(params) // columns)
    figure = Figure(figsize=(9.6, 3.2 + 2.7 * rows), layout="constrained")
    grid = figure.add_gridspec(1 + rows, columns, height_ratios=[1.2, *[1] * rows])
    # Outliers are drawn at the edge, so that the good trials can be distinguished.
    low, middle = np.quantile(finished, [0, 0.5])
    most = np.quantile(costs[np.isfinite(costs)], 0.85, method="lower")
    top = min(float(np.nanmax(costs)), max(most, middle + 2 * (middle - low)))
    pad = 0.06 * (top - low) or 0.01
    y, numbers = sign * np.minimum(costs, top), np.arange(len(costs))
    best = int(np.flatnonzero(complete)[np.argmin(finished)])

    def draw_trials(axes: Axes, x: np.ndarray) -> None:
        for group, fill, label in ((complete, BLUE, "trial"), (~complete, "none", "pruned, diverged or failed")):
            drawn = group & np.isfinite(costs)
            if drawn.any():
                axes.scatter(x[drawn], y[drawn], 26, facecolors=fill, edgecolors=BLUE, lw=0.9, label=label)
        axes.scatter(x[[best]], values[[best]], 150, marker="*", color=RED, zorder=3, label="best")
        if complete[0]:
            axes.axhline(values[0], ls="--", lw=1, color=GREY, label="defaults", zorder=1)
        bottom, ceiling = sorted((sign * (low - pad), sign * (top + pad)))
        axes.set_ylim(bottom, ceiling)
        axes.grid(alpha=0.25)

    axes = figure.add_subplot(grid[0, :])
    best_so_far = np.minimum.accumulate(np.where(complete, costs, np.inf))
    finite = np.isfinite(best_so_far)
    axes.plot(
        numbers[finite], sign * best_so_far[finite], drawstyle="steps-post", color=RED, lw=1.2, label="best so far"
    )
    draw_trials(axes, numbers)
    axes.set(xlabel="trial", ylabel=title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), fontsize=8, ncols=5, frameon=False)
    for index, (name, trials) in enumerate(params.items()):
        axes = figure.add_subplot(grid[1 + index // columns, index % columns])
        categorical = any(isinstance(value, str) for value in trials)
        words = sorted({str(value) for value in trials if value is not None}) if categorical else []
        x = [np.nan if value is None else words.index(str(value)) if words else float(value) for value in trials]
        draw_trials(axes, np.asarray(x, dtype=float))
        if words:
            axes.set_xticks(range(len(words)), words)
        elif name in log_scale:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set(xlabel=name, ylabel="" if index % columns else title)
    with atomic_write(path, "wb") as out:
        figure.savefig(out, format="svg", metadata={"Date": None})
    return True
