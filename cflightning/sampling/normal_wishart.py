"""Draws from the Normal-Wishart posterior of the mean and precision of vectors."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def normal_wishart(vectors: Tensor, scatter: Tensor, degrees: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Draw mean and precision of normal vectors.

    The conjugate prior of Salakhutdinov & Mnih 2008 (BPMF, eq. 14), with mean 0, the weight of one vector, the identity
    as its scale, and k degrees of freedom.

    Args:
        vectors: float32 [n, k].
        scatter: float64 [k, k], scatter matrix of further vectors with the same precision and mean 0.
        degrees: Number of these further vectors.
        rng: Generator of the draw.

    Returns:
        float64 [k], mean; float64 [k, k], precision.
    """
    n, width = vectors.shape
    vectors = vectors.double()
    mean = vectors.sum(0) / max(n, 1)
    centred = vectors - mean
    inverse_scale = torch.eye(width, dtype=torch.float64) + scatter + centred.mT @ centred
    inverse_scale += n / (n + 1) * torch.outer(mean, mean)
    precision = wishart(width + n + degrees, inverse_scale, rng)
    root = torch.linalg.cholesky((n + 1) * precision)
    noise = torch.from_numpy(rng.standard_normal((width, 1)))
    draw = n / (n + 1) * mean + torch.linalg.solve_triangular(root.mT, noise, upper=True)[:, 0]
    return draw, precision


def wishart(degrees: float, inverse_scale: Tensor, rng: np.random.Generator) -> Tensor:
    """Draw from a Wishart distribution by Bartlett's decomposition.

    Args:
        degrees: Degrees of freedom, at least k.
        inverse_scale: float64 [k, k], inverse of the scale; the mean is `degrees` times the scale.
        rng: Generator of the draw.

    Returns:
        float64 [k, k].
    """
    width = len(inverse_scale)
    factor = torch.from_numpy(np.tril(rng.standard_normal((width, width)), -1))
    factor += torch.from_numpy(np.sqrt(rng.chisquare(degrees - np.arange(width)))).diag()
    # inverse_scale = R R', so its inverse is (R^-T)(R^-T)'.
    root: Tensor = torch.linalg.solve_triangular(torch.linalg.cholesky(inverse_scale).mT, factor, upper=True)
    return root @ root.mT
