"""Pictures: drawn where matplotlib is, and told about where it is not."""

import numpy as np
import pytest

from cflightning.evaluation import plots
from cflightning.metrics.calibration import calibrate


def made_up(rows, seed=0):
    rng = np.random.default_rng(seed)
    score = np.clip(rng.normal(3.5, 1.0, rows), 1, 5)
    return calibrate(score, np.clip(np.round(score + rng.normal(0, 1, rows)), 1, 5), rng.integers(0, 9, rows))


@pytest.mark.parametrize("rows", [1, 7, 500])
@pytest.mark.parametrize(("suffix", "begins"), [("svg", b"<?xml"), ("png", b"\x89PNG")])
def test_any_calibration_can_be_drawn(tmp_path, rows, suffix, begins):
    pytest.importorskip("matplotlib", reason="pictures need the extra `plots`")
    picture = tmp_path / f"calibration.{suffix}"
    assert plots.draw_calibration(made_up(rows), picture)
    assert picture.read_bytes().startswith(begins)
    assert [path.name for path in tmp_path.iterdir()] == [picture.name]


def test_the_picture_has_diagonal_points_and_intervals(tmp_path, monkeypatch):
    figures = pytest.importorskip("matplotlib.figure", reason="pictures need the extra `plots`")
    made = []
    monkeypatch.setattr(figures.Figure, "savefig", lambda self, *args, **kwargs: made.append(self))
    calibration = made_up(1234)
    plots.draw_calibration(calibration, tmp_path / "calibration.svg")
    [axes] = made[0].axes
    diagonal, dots = axes.lines[0], axes.containers[0].lines[0]
    assert (diagonal.get_xdata() == diagonal.get_ydata()).all()
    np.testing.assert_array_equal(dots.get_xdata(), calibration.score)
    np.testing.assert_array_equal(dots.get_ydata(), calibration.rating)
    [bars] = axes.containers[0].lines[2]
    np.testing.assert_allclose([ends[:, 1] for ends in bars.get_segments()],
                               np.stack([calibration.rating_low, calibration.rating_high], axis=1))  # fmt: skip
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("mean predicted rating", "mean true rating")
    assert "1,234 test rows" in axes.get_title()


def test_without_matplotlib_nothing_is_drawn(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(plots, "find_spec", lambda name: None)
    assert not plots.draw_calibration(made_up(50), tmp_path / "calibration.svg")
    assert "calibration.svg is not drawn: it needs matplotlib" in caplog.text
    assert not list(tmp_path.iterdir())
