"""Pictures of results; drawn where matplotlib is installed (extra `plots`)."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from cflightning.metrics.calibration import Calibration
from cflightning.utils.files import replacing

log = logging.getLogger(__name__)


def draw_calibration(calibration: Calibration, path: Path) -> bool:
    """Mean rating against mean score, bin by bin, beside the diagonal of perfect calibration.

    Args:
        calibration: what is drawn.
        path: the picture; its suffix says of which kind (svg, png, pdf).

    Returns:
        Whether it was drawn; False without matplotlib.
    """
    if find_spec("matplotlib") is None:
        log.info("%s is not drawn: it needs matplotlib (pip install matplotlib)", path.name)
        return False
    from matplotlib.figure import Figure  # without pyplot: no window system, no global state

    figure = Figure(figsize=(4.8, 4.8), layout="constrained")
    axes = figure.subplots()
    ends = np.concatenate([calibration.score, calibration.rating, calibration.rating_low, calibration.rating_high])
    low, high = float(np.nanmin(ends)), float(np.nanmax(ends))
    pad = 0.05 * (high - low) or 0.5
    axes.plot([low - pad, high + pad], [low - pad, high + pad], "--", color="0.5", lw=1, label="perfect", zorder=1)
    bars = np.nan_to_num(calibration.rating_high - calibration.rating)
    axes.errorbar(
        calibration.score, calibration.rating, bars, label="groups of test rows, 95 % interval",
        fmt="o", color="#1f5a99", ms=4.5, lw=1.2, capsize=2.5, zorder=2,
    )  # fmt: skip
    axes.set(
        xlabel="mean predicted rating",
        ylabel="mean true rating",
        xlim=(low - pad, high + pad),
        ylim=(low - pad, high + pad),
        aspect="equal",
        title=f"{calibration.rows.sum():,} test rows, calibration error {calibration.error:.3f}",
    )
    axes.title.set_fontsize(10)
    axes.grid(alpha=0.25)
    axes.legend(loc="upper left", frameon=False)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=150)
    return True


def draw_search(
    values: np.ndarray,
    complete: np.ndarray,
    settings: Mapping[str, Sequence[Any]],
    by_logarithm: Collection[str],
    path: Path,
    title: str = "val RMSE",
    least: bool = True,
) -> bool:
    """The values of a search by trial, with the best so far, and against every setting.

    Args:
        values: float [trials], in the order of the search, the defaults first; NaN where there is none.
        complete: bool [trials], whether a trial went its whole way; the others are drawn hollow.
        settings: name -> values, numbers or words, one a trial; None where it is not known.
        by_logarithm: names of the settings whose axis is logarithmic.
        path: the picture (svg); written in one step.
        title: of the values.
        least: whether the least is the best; else the greatest.

    Returns:
        Whether it was drawn; False without matplotlib, or without a complete trial.
    """
    sign = 1 if least else -1
    errors = sign * values  # lower is better
    finished = errors[complete]
    if find_spec("matplotlib") is None or not len(finished):
        return False
    from matplotlib.figure import Figure
    from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullFormatter

    across = 2 if len(settings) in (2, 4) else 3
    down = -(-len(settings) // across)
    figure = Figure(figsize=(9.6, 3.2 + 2.7 * down), layout="constrained")
    grid = figure.add_gridspec(1 + down, across, height_ratios=[1.2, *[1] * down])
    # What is far off is drawn at the edge: the good ones are what is to be told apart.
    low, middle = np.quantile(finished, [0, 0.5])
    most = np.quantile(errors[np.isfinite(errors)], 0.85, method="lower")
    top = min(float(np.nanmax(errors)), max(most, middle + 2 * (middle - low)))
    pad = 0.06 * (top - low) or 0.01
    y, numbers = sign * np.minimum(errors, top), np.arange(len(errors))
    best = int(np.flatnonzero(complete)[np.argmin(finished)])

    def dots(axes: Any, x: np.ndarray) -> None:
        for which, fill, label in (
            (complete, "#1f5a99", "trial"),
            (~complete, "none", "cut short, diverged or failed"),
        ):
            which = which & np.isfinite(errors)
            if which.any():
                axes.scatter(x[which], y[which], 26, facecolors=fill, edgecolors="#1f5a99", lw=0.9, label=label)
        axes.scatter(x[[best]], values[[best]], 150, marker="*", color="#c8501e", zorder=3, label="best")
        if complete[0]:
            axes.axhline(values[0], ls="--", lw=1, color="0.5", label="defaults", zorder=1)
        axes.set_ylim(*sorted((sign * (low - pad), sign * (top + pad))))
        axes.grid(alpha=0.25)

    axes = figure.add_subplot(grid[0, :])
    so_far = np.minimum.accumulate(np.where(complete, errors, np.inf))
    known = np.isfinite(so_far)
    axes.plot(
        numbers[known], sign * so_far[known], drawstyle="steps-post", color="#c8501e", lw=1.2, label="best so far"
    )
    dots(axes, numbers)
    axes.set(xlabel="trial", ylabel=title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), fontsize=8, ncols=5, frameon=False)
    for at, (name, drawn) in enumerate(settings.items()):
        axes = figure.add_subplot(grid[1 + at // across, at % across])
        words = any(isinstance(value, str) for value in drawn)
        kinds = sorted({value for value in drawn if value is not None}, key=str) if words else []
        places = [np.nan if value is None else kinds.index(value) if words else float(value) for value in drawn]
        dots(axes, np.asarray(places, dtype=float))
        if words:
            axes.set_xticks(range(len(kinds)), kinds)
        elif name in by_logarithm:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set(xlabel=name, ylabel="" if at % across else title)
    with replacing(path, "wb") as out:
        figure.savefig(out, format="svg", metadata={"Date": None})
    return True
