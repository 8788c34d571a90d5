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
def test_a_picture_of_any_calibration(tmp_path, rows, suffix, begins):
    pytest.importorskip("matplotlib", reason="pictures need the extra `plots`")
    picture = tmp_path / f"calibration.{suffix}"
    assert plots.draw_calibration(made_up(rows), picture)
    assert picture.read_bytes().startswith(begins)
    assert [path.name for path in tmp_path.iterdir()] == [picture.name]


def test_what_is_drawn(tmp_path, monkeypatch):
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


SEARCH = (
    np.array([0.93, np.nan, 0.95, 0.91, 9.0]),
    np.array([True, False, False, True, True]),
    {
        "l2": [0.02, 0.1, 0.001, 0.03, 0.2],
        "dim": [None, 16, 32, 64, 16],
        "svdpp": ["both", "none", None, "both", "user"],
    },
)


def test_a_picture_of_a_search(tmp_path, monkeypatch):
    figures = pytest.importorskip("matplotlib.figure", reason="pictures need the extra `plots`")
    assert plots.draw_search(*SEARCH, {"l2"}, tmp_path / "history.svg")
    assert (tmp_path / "history.svg").read_bytes().startswith(b"<?xml")
    assert [path.name for path in tmp_path.iterdir()] == ["history.svg"]
    made = []
    monkeypatch.setattr(figures.Figure, "savefig", lambda self, *args, **kwargs: made.append(self))
    plots.draw_search(*SEARCH, {"l2"}, tmp_path / "history.svg")
    history, l2, dim, bags = made[0].axes
    np.testing.assert_array_equal(history.lines[0].get_ydata(), [0.93, 0.93, 0.93, 0.91, 0.91])  # the best so far
    finished, others, best = (dots.get_offsets() for dots in l2.collections)
    np.testing.assert_allclose(np.asarray(finished)[:2], [[0.02, 0.93], [0.03, 0.91]])
    np.testing.assert_allclose(np.asarray(others)[:, 0], [0.001])  # the other one has no error to be drawn at
    np.testing.assert_allclose(np.asarray(best), [[0.03, 0.91]])
    assert np.asarray(finished)[2, 1] < 2  # what is far off does not press the rest together
    assert (l2.get_xscale(), dim.get_xscale(), bags.get_xscale()) == ("log", "linear", "linear")
    assert [label.get_text() for label in bags.get_xticklabels()] == ["both", "none", "user"]


def test_where_the_greatest_is_the_best_the_picture_is_upside_down(tmp_path, monkeypatch):
    figures = pytest.importorskip("matplotlib.figure", reason="pictures need the extra `plots`")
    made = []
    monkeypatch.setattr(figures.Figure, "savefig", lambda self, *args, **kwargs: made.append(self))
    values = np.array([0.4, np.nan, 0.3, 0.45, 0.01])
    plots.draw_search(values, *SEARCH[1:], {"l2"}, tmp_path / "history.svg", "val nDCG@10", least=False)
    history, l2, *_ = made[0].axes
    assert history.get_ylabel() == "val nDCG@10"
    np.testing.assert_array_equal(history.lines[0].get_ydata(), [0.4, 0.4, 0.4, 0.45, 0.45])
    np.testing.assert_allclose(np.asarray(l2.collections[2].get_offsets()), [[0.03, 0.45]])
    low, high = history.get_ylim()
    assert 0.01 < low < 0.4 < 0.45 < high  # what is far off lies on the lower edge


def test_a_search_of_one_trial_and_of_none(tmp_path):
    pytest.importorskip("matplotlib", reason="pictures need the extra `plots`")
    one, none = np.array([0.9]), np.array([np.nan])
    assert plots.draw_search(one, np.array([True]), {"l2": [0.02]}, set(), tmp_path / "history.svg")
    assert not plots.draw_search(none, np.array([False]), {"l2": [0.02]}, set(), tmp_path / "none.svg")
    assert not (tmp_path / "none.svg").exists()


def test_without_matplotlib_it_is_said_and_nothing_written(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(plots, "find_spec", lambda name: None)
    assert not plots.draw_calibration(made_up(50), tmp_path / "calibration.svg")
    assert "calibration.svg is not drawn: it needs matplotlib" in caplog.text
    assert not list(tmp_path.iterdir())
