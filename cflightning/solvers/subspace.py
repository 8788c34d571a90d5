"""Leading singular vectors of a matrix that is known by its products alone: subspace iteration.

Halko, Martinsson & Tropp (2011), "Finding structure with randomness". Each sweep ends with a Rayleigh-Ritz step, whose
Gram matrices and their eigenvectors in double precision are much faster than a QR decomposition of tall tables.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cflightning.utils.thread_pool import ThreadPool
from cflightning.utils.torch_threads import one_thread

OVERSAMPLING = 32
"""Minimum number of directions beyond those wanted: the last ones of a subspace are the least exact."""
WIDTH_UNIT = 64
"""Unit of the number of directions: a strip of the compiled product."""
MIN_EIGENVALUE = 1e-7
"""Eigenvalues of the Gram matrix below this share of the largest are rounding errors."""


def width(dim: int) -> int:
    """Return the number of directions of an iteration for `dim` of them."""
    return -(-(dim + OVERSAMPLING) // WIDTH_UNIT) * WIDTH_UNIT


def random_directions(size: int, dim: int, seed: int) -> Tensor:
    """Draw the start of an iteration for `dim` directions: float32 [size, width], width above dim."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, width(dim), generator=generator)


def sweep(
    table: Tensor, apply: Callable[[Tensor], Tensor], apply_transposed: Callable[[Tensor], Tensor], pool: ThreadPool
) -> tuple[Tensor, Tensor]:
    """Multiply directions by ``M^T M``, then turn them into its approximate eigenvectors.

    Args:
        table: float32 [columns of M, width], the directions before.
        apply: M times a table.
        apply_transposed: The transpose of M times a table.
        pool: Threads; the result does not depend on their number, bit for bit, if `apply` does not.

    Returns:
        As `rayleigh_ritz`.
    """
    return rayleigh_ritz(apply_transposed(apply(table)), apply, pool)


def rayleigh_ritz(table: Tensor, apply: Callable[[Tensor], Tensor], pool: ThreadPool) -> tuple[Tensor, Tensor]:
    """Compute the eigenvectors of ``M^T M`` within the span of a table.

    Args:
        table: float32 [columns of M, width].
        apply: M times a table.
        pool: Threads.

    Returns:
        float32 [columns of M, width], orthonormal columns, most important first, and float64 [width], their
        eigenvalues, falling; zeros for directions that M lacks.
    """
    gram = pool.gram(table)
    scale = gram.diagonal().clamp(min=torch.finfo(torch.float32).tiny).rsqrt()
    with one_thread():
        lengths, rotation = torch.linalg.eigh(gram * scale * scale[:, None])
    kept = lengths > MIN_EIGENVALUE * lengths[-1]
    white = scale[:, None] * rotation * torch.where(kept, lengths, 1).rsqrt() * kept
    gram = pool.gram(apply(table))
    with one_thread():
        values, rotation = torch.linalg.eigh(white.mT @ gram @ white)
        rotation = (white @ rotation).flip(1).float()
    return pool.product(table, rotation), values.flip(0).clamp(min=0)
