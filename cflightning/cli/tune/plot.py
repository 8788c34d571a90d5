"""The picture of a search, drawn if matplotlib is installed (extra `plots`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cflightning.cli.tune.goals import Goal
from cflightning.cli.tune.ranges import Range, display_choice
from cflightning.cli.tune.trials import Outcome
from cflightning.objectives.settings import SearchRange
from cflightning.utils.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, RED, GREY = "#1f5a99", "#c8501e", "0.5"


def draw_search(
    outcomes: Sequence[Outcome], ranges: Mapping[str, Range], titles: Mapping[str, str], goal: Goal, path: Path
) -> None:
    """Draw the goal metric by trial, with the best so far, and against every parameter, if a trial is complete.

    Trials that are not complete are drawn hollow. Optuna's own plots are two pictures, in which one outlier compresses
    the good trials.

    Args:
        outcomes: All finished trials, by number.
        ranges: Option -> range.
        titles: Option -> its name in the picture.
        goal: The metric.
        path: The picture (svg), which is replaced in one step.
    """
    complete = np.array([outcome.complete for outcome in outcomes])
    if find_spec("matplotlib") is None or not complete.any():
        return
    from matplotlib.figure import Figure
    from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullFormatter

    values = np.array([outcome.value for outcome in outcomes])
    sign = goal.cost(1)
    costs = sign * values
    columns = 2 if len(ranges) in (2, 4) else 3
    rows = -(-len(ranges) // columns)
    figure = Figure(figsize=(9.6, 3.2 + 2.7 * rows), layout="constrained")
    grid = figure.add_gridspec(1 + rows, columns, height_ratios=[1.2, *[1] * rows])
    # Outliers are drawn at the edge, so that the good trials can be distinguished.
    low, middle = np.quantile(costs[complete], [0, 0.5])
    bulk = np.quantile(costs[np.isfinite(costs)], 0.85, method="lower")
    top = min(float(np.nanmax(costs)), max(bulk, middle + 2 * (middle - low)))
    pad = 0.06 * (top - low) or 0.01
    y, numbers = sign * np.minimum(costs, top), np.arange(len(costs))
    best = int(np.argmin(np.where(complete, costs, np.inf)))

    def draw_trials(axes: Axes, x: np.ndarray) -> None:
        for group, fill, label in ((complete, BLUE, "trial"), (~complete, "none", "pruned, diverged or failed")):
            drawn = group & np.isfinite(costs)
            if drawn.any():
                axes.scatter(x[drawn], y[drawn], 26, facecolors=fill, edgecolors=BLUE, lw=0.9, label=label)
        axes.scatter(x[[best]], values[[best]], 150, marker="*", color=RED, zorder=3, label="best")
        if complete[0]:
            axes.axhline(values[0], ls="--", lw=1, color=GREY, label="defaults", zorder=1)
        axes.set_ylim(*sorted((sign * (low - pad), sign * (top + pad))))
        axes.grid(alpha=0.25)

    axes = figure.add_subplot(grid[0, :])
    best_so_far = np.minimum.accumulate(np.where(complete, costs, np.inf))
    finite = np.isfinite(best_so_far)
    axes.plot(numbers[finite], sign * best_so_far[finite], ds="steps-post", color=RED, lw=1.2, label="best so far")
    draw_trials(axes, numbers)
    axes.set(xlabel="trial", ylabel=goal.title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), fontsize=8, ncols=5, frameon=False)
    for index, (name, option_range) in enumerate(ranges.items()):
        axes = figure.add_subplot(grid[1 + index // columns, index % columns])
        params = [outcome.params.get(name) for outcome in outcomes]
        words = sorted({display_choice(value) for value in params if isinstance(value, str)})
        x = [words.index(display_choice(value)) if isinstance(value, str) else value for value in params]
        draw_trials(axes, np.array(x, dtype=float))
        if words:
            axes.set_xticks(range(len(words)), words)
        elif isinstance(option_range, SearchRange) and option_range.log:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set(xlabel=titles[name], ylabel="" if index % columns else goal.title)
    with atomic_write(path, "wb") as out:
        figure.savefig(out, format="svg", metadata={"Date": None})
