"""The picture of a calibration, drawn if matplotlib is installed (extra `plots`)."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from cflightning.metrics.calibration import Calibration

log = logging.getLogger(__name__)


def draw_calibration(calibration: Calibration, path: Path) -> bool:
    """Draw mean rating against mean score, bin by bin, beside the diagonal of perfect calibration.

    Args:
        calibration: The calibration.
        path: The picture; its suffix determines the format (svg, png, pdf).

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
        calibration.score, calibration.rating, bars, label="bins of test rows, 95 % interval",
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
