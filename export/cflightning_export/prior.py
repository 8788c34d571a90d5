"""What is known of a row before its first rating: a normal distribution, taken from the rows that were trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

NOISE = 0.3 / 16
"""Variance of a rating around its score, as a share of the squared rating range: .3 where ratings go from 1 to 5.

Less than what is found (.65): trained rows spread less than the true ones, as every penalised estimate does, and so
does their covariance. Anything from .2 to .45 answers as well, on MovieLens 1M and 100K, with and without bags."""
TRUST = 0.5
"""Share of what a bag says that is believed of a new row: it was learnt from the very rows that it describes.

On MovieLens 100K, of 0 to .9 the best for new users of 5 to 20 ratings."""
RANK = 16
"""Directions in which bags speak; on MovieLens 1M as many as all 65."""
SMALLEST = 1e-6
"""Share of the largest variance below which none is taken to be."""


class Leaning(NamedTuple):
    """What a row's being rated says of who rated it, whatever the rating (SVD++, Koren 2008, eq. 15).

    The prior mean of a row with n ratings moves by ``(n + 1)^-1/2 * (sum of vectors) @ directions``.

    Attributes:
        vectors: float32 [rows of the other side, rank].
        directions: float64 [rank, dim + 1].
    """

    vectors: NDArray[np.float32]
    directions: NDArray[np.float64]


class Prior(NamedTuple):
    """N(mean, root root') of a row, its factors and then its bias.

    Attributes:
        mean: float64 [dim + 1].
        root: float64 [dim + 1, dim + 1], invertible.
        leaning: how the mean moves with what has been rated; None where it does not.
    """

    mean: NDArray[np.float64]
    root: NDArray[np.float64]
    leaning: Leaning | None


def find_prior(vectors: Tensor, bias: Tensor, side: str, bags: Mapping[str, Tensor] | None = None) -> Prior:
    """The distribution of a side's trained rows.

    Rows that are zero throughout were never trained. With bags it is that of what they leave.

    Args:
        vectors: float32 [rows, dim]; row 0 is left out.
        bias: float32 [rows].
        side: `user` or `item`, whose rows these are.
        bags: of a checkpoint, by the names of `tasks.bags.BagPrior.state`; those of other shapes are left out.
    """
    rows = np.column_stack([vectors.double().numpy(), bias.double().numpy()])[1:]
    trained, leaning = rows.any(axis=1), None
    names = [f"{side}_{table}.{part}" for part in ("vectors", "mean") for table in ("factors", "bias")]
    if bags and set(names) <= set(bags):
        learnt, mean = (
            np.column_stack([bags[name].double().numpy() for name in pair]) for pair in (names[:2], names[2:])
        )
        if mean[1:].shape == rows.shape and learnt.any():
            left, strength, right = np.linalg.svd(learnt, full_matrices=False)
            kept = slice(min(RANK, int((strength > SMALLEST * strength[0]).sum())))
            leaning = Leaning((left * strength)[:, kept].astype(np.float32), TRUST * right[kept])
            rows = rows - TRUST * mean[1:] @ right[kept].T @ right[kept]
    rows = rows[trained]
    if len(rows) == 0:
        rows = np.zeros((1, vectors.shape[1] + 1))
    variances, axes = np.linalg.eigh(covariance(rows))
    floor = max(SMALLEST * float(variances[-1]), 1e-8)
    return Prior(rows.mean(axis=0), axes * np.sqrt(np.maximum(variances, floor)), leaning)


def covariance(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Covariance of rows, float64 [n, width] -> [width, width], correlations shrunk as much as few rows ask for.

    The share by which they shrink minimises the expected squared error (Schäfer & Strimmer 2005, target D): about 1 %
    of MovieLens 1M's 5,436 users at 65 columns, nearly all of a handful.
    """
    n, width = rows.shape
    if n < 2:
        return np.zeros((width, width))
    centred = rows - rows.mean(axis=0)
    spread = centred.std(axis=0, ddof=1)
    unit = np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 0)
    products, squares = unit.T @ unit, (unit**2).T @ unit**2
    correlation = products / (n - 1)
    apart = ~np.eye(width, dtype=bool)
    uncertain = n / (n - 1) ** 3 * float((squares - products**2 / n)[apart].sum())
    total = float((correlation[apart] ** 2).sum())
    share = min(max(uncertain / total, 0.0), 1.0) if total > 0 else 1.0
    found = correlation * np.outer(spread, spread)
    shrunk: NDArray[np.float64] = np.where(apart, (1 - share) * found, found)
    return shrunk
