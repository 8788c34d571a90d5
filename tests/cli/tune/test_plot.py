"""The picture of a search."""

import math

import numpy as np
import pytest

from cflightning.cli.tune.goals import RANKINGS, RATINGS
from cflightning.cli.tune.ranges import Choices, SearchRange

pytest.importorskip("optuna", reason="tune needs the extra `tune`")
from cflightning.cli.tune.plot import draw_search
from cflightning.cli.tune.trials import Outcome

RANGES = {
    "model.l2": SearchRange(0.001, 0.2, log=True),
    "model.dim": SearchRange(16, 64),
    "model.svdpp": Choices(('"both"', '"none"', '"user"')),
}
TITLES = {name: name.removeprefix("model.") for name in RANGES}
PARAMS = (
    {"model.l2": 0.02, "model.svdpp": '"both"'},
    {"model.l2": 0.1, "model.dim": 16, "model.svdpp": '"none"'},
    {"model.l2": 0.001, "model.dim": 32},
    {"model.l2": 0.03, "model.dim": 64, "model.svdpp": '"both"'},
    {"model.l2": 0.2, "model.dim": 16, "model.svdpp": '"user"'},
)


def outcomes(*values):
    notes = ["", "diverged", "pruned", "", ""]
    return [Outcome(number, value, note=notes[number], params=PARAMS[number]) for number, value in enumerate(values)]


SEARCH = outcomes(0.93, math.nan, 0.95, 0.91, 9.0), RANGES, TITLES


def test_a_picture_of_a_search(tmp_path, monkeypatch):
    figures = pytest.importorskip("matplotlib.figure", reason="pictures need the extra `plots`")
    draw_search(*SEARCH, RATINGS, tmp_path / "history.svg")
    assert (tmp_path / "history.svg").read_bytes().startswith(b"<?xml")
    assert [path.name for path in tmp_path.iterdir()] == ["history.svg"]
    made = []
    monkeypatch.setattr(figures.Figure, "savefig", lambda self, *args, **kwargs: made.append(self))
    draw_search(*SEARCH, RATINGS, tmp_path / "history.svg")
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
    draw_search(outcomes(0.4, math.nan, 0.3, 0.45, 0.01), RANGES, TITLES, RANKINGS, tmp_path / "history.svg")
    history, l2, *_ = made[0].axes
    assert history.get_ylabel() == "val nDCG@10"
    np.testing.assert_array_equal(history.lines[0].get_ydata(), [0.4, 0.4, 0.4, 0.45, 0.45])
    np.testing.assert_allclose(np.asarray(l2.collections[2].get_offsets()), [[0.03, 0.45]])
    low, high = history.get_ylim()
    assert 0.01 < low < 0.4 < 0.45 < high  # an outlier is on the lower edge


def test_a_search_of_one_trial_and_of_none(tmp_path):
    pytest.importorskip("matplotlib", reason="pictures need the extra `plots`")
    draw_search(outcomes(0.9), RANGES, TITLES, RATINGS, tmp_path / "history.svg")
    assert (tmp_path / "history.svg").is_file()
    draw_search(outcomes(math.nan), RANGES, TITLES, RATINGS, tmp_path / "none.svg")
    draw_search([], RANGES, TITLES, RATINGS, tmp_path / "none.svg")
    assert not (tmp_path / "none.svg").exists()
