"""What is drawn of a whole table: its rows' common mean and precision."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def normal_wishart(rows: Tensor, scatter: Tensor, more: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Draw mean and precision of normal rows.

    The conjugate prior of Salakhutdinov & Mnih 2008 (BPMF, eq. 14), with mean 0, one row's worth of it, the identity as
    its precision, and as many degrees of freedom as a row has numbers.

    Args:
        rows: float32 [n, k].
        scatter: float64 [k, k], added to that of the rows: what else shares their precision.
        more: degrees of freedom of that.
        rng: of the draw.

    Returns:
        float64 [k], mean; float64 [k, k], precision.
    """
    n, width = rows.shape
    wide = rows.double()
    mean = wide.sum(0) / max(n, 1)
    apart = wide - mean
    inverse_scale = torch.eye(width, dtype=torch.float64) + scatter + apart.mT @ apart
    inverse_scale += n / (n + 1) * torch.outer(mean, mean)
    precision = wishart(width + n + more, inverse_scale, rng)
    root = torch.linalg.cholesky((n + 1) * precision)
    noise = torch.from_numpy(rng.standard_normal((width, 1)))
    drawn = n / (n + 1) * mean + torch.linalg.solve_triangular(root.mT, noise, upper=True)[:, 0]
    return drawn, precision


def wishart(freedom: float, inverse_scale: Tensor, rng: np.random.Generator) -> Tensor:
    """Draw from a Wishart distribution by Bartlett's decomposition: float64 [k, k] -> float64 [k, k].

    Args:
        freedom: degrees of freedom, at least k.
        inverse_scale: the mean is `freedom` times its inverse.
        rng: of the draw.
    """
    width = len(inverse_scale)
    factor = torch.from_numpy(np.tril(rng.standard_normal((width, width)), -1))
    factor += torch.from_numpy(np.sqrt(rng.chisquare(freedom - np.arange(width)))).diag()
    # inverse_scale = R R', so its inverse is (R^-T)(R^-T)'.
    root: Tensor = torch.linalg.solve_triangular(torch.linalg.cholesky(inverse_scale).mT, factor, upper=True)
    return root @ root.mT
