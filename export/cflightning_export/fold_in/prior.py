"""The prior of a user or item vector: a normal distribution, estimated from the trained vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cflightning.models.network import DotProductTables, RatingScale

Side = Literal["user", "item"]
OTHER: dict[Side, Side] = {"user": "item", "item": "user"}
CHUNK = 1 << 13
"""Vectors that are converted to float64 together."""

NOISE: dict[Side, float] = {"user": 0.45 / 16, "item": 0.25 / 16}
"""Variance of the ratings of a new user or item around their scores, as a share of the squared rating range.

On a scale from 1 to 5 that is .45 for new users, of .3 to .65 the best or equal to it on MovieLens 1M, 100K and latest
small together; the optimum of each is better by .0005 RMSE at most. For new items of 1M, .45 would give the first
ratings too little weight."""
HALF_TRUST = 100.0
"""Mean number of ratings per item (or user) at which half of the SVD++ term is trusted.

The term was trained on the same ratings that it describes. The best share is .7 to .9 on MovieLens 1M (221 ratings an
item), .4 to .6 on 100K (49) and 0 to .1 on latest small (9)."""
RANK = 32
"""Rank of the prior weights; on MovieLens 1M as good as the full rank of 65, while 16 is worse by .0005."""
MEDIAN_SHARE = 0.5
"""Median number of ratings, as a share of the mean: .4 to .6 for users and items of MovieLens."""
MAX_WIDENING = 30.0
"""Largest ratio of the prior's variance to that of the trained vectors, where ratings hardly determine these."""
MIN_VARIANCE = 1e-6
"""Smallest variance, as a share of the largest."""

Floats = NDArray[np.float64]


class PriorWeights(NamedTuple):
    """The SVD++ term of the prior: which ids were rated moves its mean, whatever the ratings (Koren 2008, eq. 15).

    The mean of a vector with n ratings moves by ``(n + 1)^-1/2 * (sum of vectors) @ directions``.

    Attributes:
        vectors: float32 [1 + ids of the other side, rank].
        directions: float64 [rank, dim + 1].
    """

    vectors: NDArray[np.float32]
    directions: Floats


class Prior(NamedTuple):
    """N(mean, root root') of a vector: factors, and then the bias.

    Attributes:
        mean: float64 [dim + 1].
        root: float64 [dim + 1, dim + 1], invertible.
        weights: change of the mean by the rated ids; None if it does not.
        noise: variance of a rating around its score, squared rating units.
    """

    mean: Floats
    root: Floats
    weights: PriorWeights | None
    noise: float

    def precision(self) -> Floats:
        """Return the inverse covariance times the noise: float64 [dim + 1, dim + 1]."""
        return (self.noise * np.linalg.inv(self.root @ self.root.T)).astype(np.float64)

    def mean_after(self, index: NDArray[np.int64]) -> Floats:
        """Return the mean of the prior once some ids, int64 [n], were rated: float64 [dim + 1]."""
        if self.weights is None or not len(index):
            return self.mean
        total = self.weights.vectors[index].astype(np.float64).sum(axis=0) @ self.weights.directions
        moved: Floats = self.mean + total / np.sqrt(len(index) + 1)
        return moved


def estimate_prior(
    tables: DotProductTables,
    side: Side,
    scale: RatingScale,
    counts: NDArray[np.int64] | None = None,
    svdpp_terms: Mapping[str, Tensor] | None = None,
    trust: float | None = None,
) -> Prior:
    """Estimate the distribution of the vectors of a side.

    Vectors of zeros were not trained and are left out. With SVD++ terms it is the distribution of what these leave.

    Args:
        tables: tables of the network; index 0 is left out.
        side: side of the vectors.
        scale: scale of the network.
        counts: int64 [items], training ratings of each; None where they are not known: then trained vectors count as
            exact, and half of the SVD++ term is trusted.
        svdpp_terms: SVD++ terms of a checkpoint; those of other shapes are ignored.
        trust: share of the SVD++ term that is trusted; None for the share that `HALF_TRUST` gives.
    """
    low, high = scale.rating_range or (0.0, 1.0)
    noise = NOISE[side] * (high - low) ** 2
    side_vectors, other_vectors = (_vectors(tables, name) for name in (side, OTHER[side]))
    ratings = 0 if counts is None else int(counts.sum())
    if trust is None:
        mean_count = ratings / max(len(other_vectors) - 1, 1)
        trust = mean_count / (mean_count + HALF_TRUST) if ratings else 0.5
    weights, projection = None, np.zeros((0, 0))
    names = [f"{side}_{table}.{part}" for part in ("vectors", "mean") for table in ("factors", "bias")]
    if svdpp_terms and set(names) <= set(svdpp_terms):
        learned = np.column_stack([svdpp_terms[name].double().numpy() for name in names[:2]])
        fits = svdpp_terms[names[2]].shape == side_vectors.shape and len(svdpp_terms[names[3]]) == len(side_vectors)
        if fits and learned.any():
            left, strength, right = np.linalg.svd(learned, full_matrices=False)
            leading = slice(min(RANK, int((strength > MIN_VARIANCE * strength[0]).sum())))
            weights = PriorWeights((left * strength)[:, leading].astype(np.float32), trust * right[leading])
            projection = trust * right[leading].T @ right[leading]

    def trained() -> Iterator[Floats]:
        """Yield trained vectors, without the SVD++ term."""
        for chunk, vectors in _chunks(tables, side):
            known = vectors.any(axis=1)
            if svdpp_terms is not None and weights is not None:
                terms = np.column_stack([svdpp_terms[name][chunk].double().numpy() for name in names[2:]])
                vectors -= terms @ projection
            yield vectors[known]

    mean, covariance, number = moments(trained, side_vectors.shape[1] + 1)
    if counts is not None and ratings and any(vectors.any() for _, vectors in _chunks(tables, OTHER[side])):
        median_count = MEDIAN_SHARE * ratings / max(number, 1) / noise
        covariance = unshrink(covariance, median_count * mean_information(tables, side, scale, counts))
    variances, axes = np.linalg.eigh(covariance)
    floor = max(MIN_VARIANCE * float(variances[-1]), 1e-8)
    return Prior(mean, axes * np.sqrt(np.maximum(variances, floor)), weights, noise)


def _vectors(tables: DotProductTables, side: Side) -> Tensor:
    return tables.user_vectors if side == "user" else tables.item_vectors


def _biases(tables: DotProductTables, side: Side) -> Tensor:
    return tables.user_bias if side == "user" else tables.item_bias


def _chunks(tables: DotProductTables, side: Side) -> Iterator[tuple[slice, Floats]]:
    """Yield indices of a side without the unknown one, and their factors and biases: float64 [n, dim + 1].

    As float64, a whole table of millions of vectors would take twice its memory again.
    """
    vectors, bias = _vectors(tables, side), _biases(tables, side)
    for start in range(1, len(vectors), CHUNK):
        chunk = slice(start, start + CHUNK)
        yield chunk, np.column_stack([vectors[chunk].double().numpy(), bias[chunk].double().numpy()])


def mean_information(tables: DotProductTables, side: Side, scale: RatingScale, counts: NDArray[np.int64]) -> Floats:
    """Return the mean Fisher information of a rating of noise 1 about a vector of a side: float64 [dim + 1, dim + 1].

    Args:
        tables: tables of the network.
        side: side of the vector.
        scale: scale of the network.
        counts: int64 [items], training ratings of each; users count as having rated equally often.
    """
    bias, others = _biases(tables, side)[1:], len(_vectors(tables, OTHER[side]))
    share = counts / max(counts.sum(), 1) if side == "user" else np.full(others - 1, 1 / max(others - 1, 1))
    level = float(tables.global_bias) + (float(bias.double().mean()) if len(bias) else 0.0)
    width = _vectors(tables, side).shape[1] + 1
    total = np.zeros((width, width))
    for chunk, vectors in _chunks(tables, OTHER[side]):
        total += information(vectors, share[chunk.start - 1 : chunk.stop - 1], level, scale)
    return total


def information(other: Floats, share: Floats, base: float, scale: RatingScale) -> Floats:
    """Return the Fisher information of a rating of noise 1: the Hessian of half its squared error.

    Args:
        other: float64 [n, dim + 1], vectors of the other side, factors and then bias.
        share: float64 [n], their shares of all ratings.
        base: logit of a score without the bias of the other side and without factors.
        scale: scale of the network.

    Returns:
        float64 [dim + 1, dim + 1], the inverse of a covariance.
    """
    slope = np.ones(len(other))
    if scale.sigmoid:
        sigmoid = 1 / (1 + np.exp(-(base + other[:, -1])))
        slope = (scale.high - scale.low) * sigmoid * (1 - sigmoid)
    z = np.column_stack([other[:, :-1], np.ones(len(other))])
    z *= (np.sqrt(share) * slope)[:, None]
    gram: Floats = z.T @ z
    return gram


def unshrink(estimated: Floats, information: Floats) -> Floats:
    """Return the covariance of the true vectors, whose estimates lie closer to the mean.

    A vector drawn from N(m, S) and estimated from ratings of information N keeps the uncertainty ``(S^-1 + N)^-1``, and
    S is the covariance C of the estimates plus that: the fixed point of EM (Dempster, Laird & Rubin 1977, sec. 4.5) if
    estimates are kept and all vectors have the same information. In axes where N is the identity and C diagonal it is
    a quadratic equation for each variance, ``s = c + s / (1 + s)``.

    For new users of MovieLens 1M it lowers RMSE by .0025 with SVD++ terms and .0020 without.

    Args:
        estimated: C, float64 [width, width].
        information: N, float64 [width, width].
    """
    values, axes = np.linalg.eigh(information)
    root = np.sqrt(np.maximum(values, MIN_VARIANCE * values[-1]))
    inward, outward = (axes * root) @ axes.T, (axes / root) @ axes.T
    variances, turned = np.linalg.eigh(inward @ estimated @ inward)
    variances = np.maximum(variances, 0.0)
    # (c + (c^2 + 4 c)^1/2) / 2, as a multiple of c
    wider = np.minimum((1 + np.sqrt(1 + 4 / np.maximum(variances, MIN_VARIANCE))) / 2, MAX_WIDENING)
    half = outward @ turned * np.sqrt(variances * wider)
    true: Floats = half @ half.T
    return true


def moments(chunks: Callable[[], Iterator[Floats]], width: int) -> tuple[Floats, Floats, int]:
    """Estimate mean and covariance, with correlations shrunk the more, the fewer vectors there are.

    The shrinkage minimises the expected squared error (Schäfer & Strimmer 2005, target D): about 1 % for MovieLens 1M's
    5,436 users at 65 columns, nearly 100 % for a handful of users.

    Args:
        chunks: returns an iterator of all vectors, float64 [some, width] each; it is called several times.
        width: length of a vector.

    Returns:
        Mean, float64 [width]; covariance, [width, width]; number of vectors. Without vectors both are zero.
    """
    n, total = 0, np.zeros(width)
    for vectors in chunks():
        n, total = n + len(vectors), total + vectors.sum(axis=0)
    mean = total / max(n, 1)
    if n < 2:
        return mean, np.zeros((width, width)), n
    deviation = np.sqrt(sum(np.square(vectors - mean).sum(axis=0) for vectors in chunks()) / (n - 1))
    products, squares = np.zeros((2, width, width))
    for vectors in chunks():
        centred = vectors - mean
        unit = np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > 0)
        products += unit.T @ unit
        unit *= unit
        squares += unit.T @ unit
    correlation = products / (n - 1)
    off_diagonal = ~np.eye(width, dtype=bool)
    variance = n / (n - 1) ** 3 * float((squares - products**2 / n)[off_diagonal].sum())
    signal = float((correlation[off_diagonal] ** 2).sum())
    shrinkage = min(max(variance / signal, 0.0), 1.0) if signal > 0 else 1.0
    covariance = correlation * np.outer(deviation, deviation)
    return mean, np.where(off_diagonal, (1 - shrinkage) * covariance, covariance), n
