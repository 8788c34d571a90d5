"""Score distributions and their population stability index."""

import numpy as np
import pytest

from cflightning_serve.bundle.reference import Reference
from cflightning_serve.http.serving.drift import MIN_SCORES, WINDOW, ScoreDistribution, population_stability_index

REFERENCE = Reference(edges=(1.0, 2.0, 3.0), shares=(0.25, 0.25, 0.25, 0.25), k=1)


def test_scores_are_counted_in_the_bins_of_the_reference():
    distribution = ScoreDistribution(REFERENCE)
    distribution.add(np.array([0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 9.0], np.float32))
    assert distribution.counts().tolist() == [2, 2, 2, 1]  # an edge belongs to the bin below
    assert distribution.sum() == pytest.approx(19.5)
    distribution.add(np.array([], np.float32))
    assert distribution.counts().sum() == 7


def test_lists_are_cut_to_the_length_of_the_reference_and_shorter_ones_ignored():
    distribution = ScoreDistribution(REFERENCE._replace(k=3))
    distribution.add(np.array([4, 3, 2, 1, 0], np.float32))
    distribution.add(np.array([4, 3], np.float32))
    assert distribution.counts().tolist() == [0, 1, 1, 1]


def test_psi_agrees_with_its_formula():
    counts, shares = np.array([10, 20, 30, 40]), (0.25, 0.25, 0.25, 0.25)
    expected = sum((n / 100 - 0.25) * np.log(n / 25) for n in counts)
    assert population_stability_index(counts, shares) == pytest.approx(expected, rel=0.1)  # half a score in every bin
    assert population_stability_index(counts * 1000, shares) == pytest.approx(expected, rel=1e-3)
    assert population_stability_index(np.array([25, 25, 25, 25]), shares) == 0
    assert np.isfinite(population_stability_index(np.array([100, 0, 0, 0]), (0.0, 0.5, 0.5, 0.0)))


def test_drift_covers_the_newest_scores_and_needs_enough_of_them():
    distribution, rng = ScoreDistribution(REFERENCE), np.random.default_rng(0)
    distribution.add(rng.uniform(0, 4, MIN_SCORES - 1).astype(np.float32))
    assert distribution.psi() is None
    distribution.add(rng.uniform(0, 4, WINDOW).astype(np.float32))
    assert distribution.psi() < 0.01
    for _ in range(2):
        distribution.add(rng.uniform(2, 6, WINDOW).astype(np.float32))
    assert distribution.psi() > 0.25
    for _ in range(2):
        distribution.add(rng.uniform(0, 4, WINDOW).astype(np.float32))
    assert distribution.psi() < 0.01  # old windows are forgotten
    assert distribution.counts().sum() == MIN_SCORES - 1 + 5 * WINDOW
