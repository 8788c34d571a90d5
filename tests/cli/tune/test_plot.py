"""The picture of a search."""

import numpy as np
import pytest

from cflightning.cli.tune.plot import draw_search

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
    assert draw_search(*SEARCH, {"l2"}, tmp_path / "history.svg")
    assert (tmp_path / "history.svg").read_bytes().startswith(b"<?xml")
    assert [path.name for path in tmp_path.iterdir()] == ["history.svg"]
    made = []
    monkeypatch.setattr(figures.Figure, "savefig", lambda self, *args, **kwargs: made.append(self))
    draw_search(*SEARCH, {"l2"}, tmp_path / "history.svg")
    history, l2, dim, svdpp = made[0].axes
    np.testing.assert_array_equal(history.lines[0].get_ydata(), [0.93, 0.93, 0.93, 0.91, 0.91])  # the best so far
    finished, others, best = (dots.get_offsets() for dots in l2.collections)
    np.testing.assert_allclose(np.asarray(finished)[:2], [[0.02, 0.93], [0.03, 0.91]])
    np.testing.assert_allclose(np.asarray(others)[:, 0], [0.001])  # the other one has no error to be drawn at
    np.testing.assert_allclose(np.asarray(best), [[0.03, 0.91]])
    assert np.asarray(finished)[2, 1] < 2  # an outlier does not compress the others
    assert (l2.get_xscale(), dim.get_xscale(), svdpp.get_xscale()) == ("log", "linear", "linear")
    assert [label.get_text() for label in svdpp.get_xticklabels()] == ["both", "none", "user"]


def test_where_the_greatest_is_the_best_the_picture_is_upside_down(tmp_path, monkeypatch):
    figures = pytest.importorskip("matplotlib.figure", reason="pictures need the extra `plots`")
    made = []
    monkeypatch.setattr(figures.Figure, "savefig", lambda self, *args, **kwargs: made.append(self))
    values = np.array([0.4, np.nan, 0.3, 0.45, 0.01])
    draw_search(values, *SEARCH[1:], {"l2"}, tmp_path / "history.svg", "val nDCG@10", lower_is_better=False)
    history, l2, *_ = made[0].axes
    assert history.get_ylabel() == "val nDCG@10"
    np.testing.assert_array_equal(history.lines[0].get_ydata(), [0.4, 0.4, 0.4, 0.45, 0.45])
    np.testing.assert_allclose(np.asarray(l2.collections[2].get_offsets()), [[0.03, 0.45]])
    low, high = history.get_ylim()
    assert 0.01 < low < 0.4 < 0.45 < high  # an outlier is on the lower edge


def test_a_search_of_one_trial_and_of_none(tmp_path):
    pytest.importorskip("matplotlib", reason="pictures need the extra `plots`")
    one, none = np.array([0.9]), np.array([np.nan])
    assert draw_search(one, np.array([True]), {"l2": [0.02]}, set(), tmp_path / "history.svg")
    assert not draw_search(none, np.array([False]), {"l2": [0.02]}, set(), tmp_path / "none.svg")
    assert not (tmp_path / "none.svg").exists()
