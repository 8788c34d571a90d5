"""Draws of user or item vectors from their conditional, for a chunk of vectors at a time."""

from __future__ import annotations

import threading
from typing import NamedTuple

import torch
from torch import Tensor

from cflightning.sampling.padded_rows import Chunk

_memory = threading.local()
"""Memory of each thread, reused: page faults of fresh memory cost more than the arithmetic."""


class Conditional(NamedTuple):
    """The common inputs of the draws of all vectors of a side.

    Attributes:
        features: float32 [size of the opposite side, k], coefficients of a vector.
        offset: float32 [size of the opposite side], constant part of the logit.
        root_alpha: float32 [num_users], square root of the users' precision, for items; None for users, who draw it.
        gammas: float64 [num_users], standard Gamma numbers of that draw.
        precision: float32 [k, k], Lambda.
        prior: float32 [size, k], Lambda times the prior mean.
        noise: float32 [size, k], standard normal.
        sigmoid: Whether scores are a sigmoid of the logit.
        gamma_rate: Rate of the Gamma prior of the users' precision.
        user_precision: float32 [num_users], output: the users' precision.
    """

    features: Tensor
    offset: Tensor
    root_alpha: Tensor | None
    gammas: Tensor
    precision: Tensor
    prior: Tensor
    noise: Tensor
    sigmoid: bool
    gamma_rate: float
    user_precision: Tensor


def draw_chunk(table: Tensor, chunk: Chunk, conditional: Conditional, errors: Tensor) -> None:
    """Draw the vectors of a chunk, and the precisions of its users; in place.

    Args:
        table: float32 [size, k], vectors of the side.
        chunk: Ratings of the vectors to draw.
        conditional: Inputs of the draw.
        errors: float64 [num_users], output: squared errors of the users' ratings before the draw.
    """
    index, opposite, target = chunk
    width = table.shape[1]
    gathered = _buffer(opposite.numel() * width)
    torch.index_select(conditional.features, 0, opposite, out=gathered.view(-1, width))
    near = gathered.view(*target.shape, width)
    fitted = torch.bmm(near, table[index, :, None])[..., 0]
    logit = fitted + conditional.offset[opposite].view_as(fitted)
    if conditional.sigmoid:
        score = logit.sigmoid_()
        slope = score * (1 - score)
        error = target - score
    else:
        slope, error = torch.ones_like(logit), target - logit
    if conditional.root_alpha is None:
        squared = (error.square() * (opposite > 0).view_as(error)).sum(1, dtype=torch.float64)
        errors[index] = squared
        rate = conditional.gamma_rate + squared / 2
        conditional.user_precision[index] = (conditional.gammas[index] / rate).float()
        root_alpha = conditional.user_precision[index].sqrt()[:, None]
    else:
        root_alpha = conditional.root_alpha[opposite].view_as(error)
    # In rows of unit noise: slope * near x = slope * fitted + error. The padding of `near` is zero.
    root = root_alpha * slope
    near.mul_(root[..., None])
    observed = root * fitted + root_alpha * error
    posterior = torch.baddbmm(conditional.precision, near.mT, near)
    moment = torch.bmm(observed[:, None], near)[:, 0] + conditional.prior[index]
    lower = torch.linalg.cholesky_ex(posterior).L
    half = torch.linalg.solve_triangular(lower, moment[..., None], upper=False) + conditional.noise[index, :, None]
    table[index] = torch.linalg.solve_triangular(lower.mT, half, upper=True)[..., 0]


def _buffer(size: int) -> Tensor:
    held: Tensor | None = getattr(_memory, "buffer", None)
    if held is None or held.numel() < size:
        held = _memory.buffer = torch.empty(size)
    return held[:size]
