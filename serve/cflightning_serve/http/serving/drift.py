"""Drift of the served scores: their distribution against that at export."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cflightning_serve.bundle.reference import Reference

WINDOW = 10_000
"""Scores; drift compares the newest one to two windows."""
MIN_SCORES = 1_000
"""Scores below which no drift is reported."""


class ScoreDistribution:
    """Histogram of served scores, in the bins of a reference histogram. Not thread-safe.

    Args:
        reference: distribution of the scores at export, from the manifest.
    """

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        self._edges = np.array(reference.edges, np.float32)
        self._counts = np.zeros(len(reference.shares), np.int64)
        self._window, self._previous_window = np.zeros_like(self._counts), np.zeros_like(self._counts)
        self._sum = 0.0
        self._pending: list[npt.NDArray[np.float32]] = []
        self._num_pending = 0

    def add(self, scores: npt.NDArray[np.float32]) -> None:
        """Count the scores of one response.

        Top-k lists shorter than the reference's cannot be compared and are ignored; longer ones are cut.

        Args:
            scores: float32 [n], of a top-k list in descending order.
        """
        k = self.reference.k
        if k > 1:
            if len(scores) < k:
                return
            scores = scores[:k]
        # Many responses are counted together: numpy takes as long for ten scores as for a thousand.
        self._pending.append(scores)
        self._num_pending += len(scores)
        if self._num_pending >= MIN_SCORES:
            self._count_pending()

    def counts(self) -> npt.NDArray[np.int64]:
        """Return the number of scores in each bin, int64 [bins]."""
        self._count_pending()
        return self._counts

    def sum(self) -> float:
        """Return the sum of all scores."""
        self._count_pending()
        return self._sum

    def psi(self) -> float | None:
        """Return the population stability index of the newest scores against the reference; None for too few scores."""
        self._count_pending()
        recent = self._window + self._previous_window
        return None if recent.sum() < MIN_SCORES else population_stability_index(recent, self.reference.shares)

    def _count_pending(self) -> None:
        if not self._pending:
            return
        scores = np.concatenate(self._pending)
        self._pending, self._num_pending = [], 0
        counts = np.bincount(np.searchsorted(self._edges, scores), minlength=len(self._counts))
        self._counts += counts
        self._sum += float(scores.sum(dtype=np.float64))
        self._window += counts
        if self._window.sum() >= WINDOW:
            self._previous_window, self._window = self._window, np.zeros_like(self._window)


def population_stability_index(counts: npt.NDArray[np.int64], shares: npt.ArrayLike) -> float:
    """Return the population stability index of a histogram against expected shares.

    The sum over bins of (p - q) ln(p / q), with p the observed and q the expected shares (Siddiqi 2006). Half a score
    is added to every bin, so an empty bin does not make it infinite. By convention, values below 0.1 indicate no change
    and values above 0.25 a large one.

    Args:
        counts: int64 [bins].
        shares: expected share of each bin, [bins].
    """
    n = counts.sum()
    p = (counts + 0.5) / (n + 0.5 * len(counts))
    q = (np.asarray(shares) * n + 0.5) / (n + 0.5 * len(counts))
    return float(((p - q) * np.log(p / q)).sum())
