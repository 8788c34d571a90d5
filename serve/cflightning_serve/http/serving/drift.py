"""How the scores of late spread, beside what they were like when the bundle was written."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cflightning_serve.bundle.reference import Reference

WINDOW = 10_000
"""Scores; drift is of the newest one to two windows."""
FEW = 1_000
"""Scores; of fewer, drift says nothing."""


class Spread:
    """Counts of the scores of one question, in the bins of the reference. Not safe to share between threads.

    Args:
        reference: what the manifest says of this question.
    """

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        self._edges = np.array(reference.edges, np.float32)
        self._counts = np.zeros(len(reference.shares), np.int64)
        self._now, self._before = np.zeros_like(self._counts), np.zeros_like(self._counts)
        self._sum = 0.0
        self._waiting: list[npt.NDArray[np.float32]] = []
        self._waiting_scores = 0

    def add(self, scores: npt.NDArray[np.float32]) -> None:
        """Count the scores of one answer, float32 [n], best first.

        Lists that are shorter than the reference's do not compare and are left out; longer ones are cut.
        """
        k = self.reference.k
        if k > 1:
            if len(scores) < k:
                return
            scores = scores[:k]
        self._waiting.append(scores)  # counted together: numpy takes as long for ten scores as for a thousand
        self._waiting_scores += len(scores)
        if self._waiting_scores >= FEW:
            self._count()

    def counts(self) -> npt.NDArray[np.int64]:
        """Scores in each bin so far, int64 [bins]."""
        self._count()
        return self._counts

    def sum(self) -> float:
        """Sum of every score so far."""
        self._count()
        return self._sum

    def psi(self) -> float | None:
        """Population stability index of the newest scores against the reference; None where they are few.

        The sum over bins of (p - q) ln(p / q), with p the shares of late and q those of the reference; half a score is
        added to every bin, so that an empty one does not make it infinite. By custom, below 0.1 nothing has changed
        and above 0.25 much has.
        """
        self._count()
        late = self._now + self._before
        if late.sum() < FEW:
            return None
        return psi(late, self.reference.shares)

    def _count(self) -> None:
        if not self._waiting:
            return
        scores = np.concatenate(self._waiting)
        self._waiting, self._waiting_scores = [], 0
        bins = np.bincount(np.searchsorted(self._edges, scores), minlength=len(self._counts))
        self._counts += bins
        self._sum += float(scores.sum(dtype=np.float64))
        self._now += bins
        if self._now.sum() >= WINDOW:
            self._before, self._now = self._now, np.zeros_like(self._now)


def psi(counts: npt.NDArray[Any], shares: npt.ArrayLike) -> float:
    """Population stability index of counts [bins] against expected shares [bins]."""
    n = counts.sum()
    p = (counts + 0.5) / (n + 0.5 * len(counts))
    q = (np.asarray(shares) * n + 0.5) / (n + 0.5 * len(counts))
    return float(((p - q) * np.log(p / q)).sum())
