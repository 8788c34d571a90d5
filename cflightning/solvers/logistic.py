"""Fold-in of new users by the logistic loss: vectors that separate a user's items from the rest of the catalogue.

For a user with items S, n of them, and with scores ``x_i = <p, q_i> + b_i + a`` the objective in p and a is::

    1/n sum over S of log(1 + exp(-x_i))  +  negatives / I * sum over all i of log(1 + exp(x_i))
        + l2 * (1 + negatives) / 2 * |p|^2

where I is the number of items. It is the expectation of the objective of training by sampled negatives (Rendle et al.
2020) for one user. Item vectors are first scaled to a mean length of 1, so that the penalty does not depend on how they
were trained. The problem is convex and solved by Newton's method, with conjugate gradients in each step (Nocedal &
Wright 2006, algorithm 7.1), for a block of users at a time, so that all work is in products of tables.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from cflightning.errors import DataError
from cflightning.utils.csr import Csr

MAX_BLOCK = 256
"""Maximum number of users of a block."""
ROUNDING = 1e-5
"""Relative rise of the objective that rounding can cause at its minimum."""


@dataclass(frozen=True)
class NewtonLimits:
    """Numbers of iterations of the solver; twice as many of each give the same top 10.

    Attributes:
        steps: Newton steps.
        conjugate_gradients: Iterations of each step.
        halvings: Halvings of a step that raises the objective.
        scores: Maximum number of scores of a block of users: 4 MB in each of a few tables.
    """

    steps: int = 5
    conjugate_gradients: int = 8
    halvings: int = 4
    scores: int = 1 << 20


LIMITS = NewtonLimits()
"""The numbers of iterations in use."""


def fold_in(
    item_vectors: Tensor,
    item_bias: Tensor,
    users: Csr,
    *,
    negatives: float = 8.0,
    l2: float = 0.005,
    limits: NewtonLimits = LIMITS,
) -> Tensor:
    """Compute the vectors of new users.

    Args:
        item_vectors: float32 [num_items, dim].
        item_bias: float32 [num_items].
        users: The items of every user, without index 0; values are ignored.
        negatives: Weight of the whole catalogue relative to the user's items.
        l2: L2 penalty. .005 is about the best for bce, bpr and softmax on held-out users of MovieLens.
        limits: Numbers of iterations.

    Returns:
        float32 [users, dim]; zeros for a user without items.

    Raises:
        DataError: The tables have different sizes, or an item index is out of range.
    """
    num_items, dim = item_vectors.shape
    if item_bias.shape != (num_items,):
        raise DataError(f"fold_in: item_bias must be [{num_items}], as item_vectors, got {[*item_bias.shape]}")
    if len(users.indices) and (largest := int(users.indices.max())) >= num_items:
        raise DataError(f"fold_in: items must be below {num_items}, got {largest}")
    lengths = item_vectors.norm(dim=1)
    length = float(lengths.sum()) / max(int((lengths > 0).sum()), 1) or 1.0
    table = torch.cat([item_vectors / length, item_vectors.new_ones(num_items, 1)], 1)
    weights = item_bias.new_full((num_items,), negatives / max(num_items - 1, 1))
    weights[0] = 0  # the unknown item is never a negative
    penalty = table.new_full((dim + 1,), l2 * (1 + negatives))
    penalty[-1] = 0
    block = min(max(limits.scores // num_items, 1), MAX_BLOCK)
    vectors = item_vectors.new_zeros(users.num_rows, dim)
    for begin in range(0, users.num_rows, block):
        part = users.part(begin, begin + block)
        positives = table.new_zeros(block, num_items)  # always a full block, so that every product is computed alike
        positives[torch.repeat_interleave(torch.arange(part.num_rows), part.counts), part.indices.long()] = 1
        positives[: part.num_rows] /= part.counts.clamp(min=1)[:, None]
        solved = _Objective(table, item_bias, positives, weights, penalty).minimise(limits)
        solved = solved[: part.num_rows, :-1] / length
        vectors[begin : begin + block] = torch.where(part.counts[:, None] > 0, solved, 0)
    return vectors


@dataclass(frozen=True)
class _Objective:
    """The objective of the module for some users, in the unknowns ``y = (p, a)``.

    Attributes:
        table: float32 [num_items, dim + 1], item vectors and ones.
        bias: float32 [num_items].
        positives: float32 [users, num_items], 1 / n for items of the user.
        weights: float32 [num_items], weight of every item as a negative.
        penalty: float32 [dim + 1].
    """

    table: Tensor
    bias: Tensor
    positives: Tensor
    weights: Tensor
    penalty: Tensor

    def minimise(self, limits: NewtonLimits) -> Tensor:
        """Return the minima: float32 [users, dim + 1]."""
        y = self.table.new_zeros(len(self.positives), self.table.shape[1])
        loss, scores = self.loss(y)
        for _ in range(limits.steps):
            p = scores.sigmoid_()
            gradient = (self.weights * p - self.positives * (1 - p)) @ self.table + self.penalty * y
            curvature = p * (1 - p) * (self.weights + self.positives)
            step = self._newton_step(gradient, curvature, limits.conjugate_gradients)
            new = y + step
            new_loss, scores = self.loss(new)
            for _ in range(limits.halvings):
                worse = ~(new_loss <= loss + ROUNDING * loss.abs())
                if not bool(worse.any()):
                    break
                step = torch.where(worse[:, None], step / 2, step)
                new = y + step
                new_loss, scores = self.loss(new)
            y, loss = new, new_loss
        return y

    def loss(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the objective, float32 [users], and the scores, float32 [users, num_items]."""
        scores = torch.addmm(self.bias, y, self.table.T)
        costs = softplus(scores)
        costs = costs @ self.weights + ((costs - scores) * self.positives).sum(1)  # softplus(-x) = softplus(x) - x
        return costs + (self.penalty * y.square()).sum(1) / 2, scores

    def _newton_step(self, gradient: Tensor, curvature: Tensor, iterations: int) -> Tensor:
        """Solve for the Newton step by conjugate gradients.

        Args:
            gradient: float32 [users, dim + 1].
            curvature: float32 [users, num_items], second derivatives by the scores.
            iterations: Number of iterations.
        """
        step, residual = torch.zeros_like(gradient), -gradient
        direction, square = residual, residual.square().sum(1, keepdim=True)
        tiny = torch.finfo(gradient.dtype).tiny  # avoids 0 / 0 for users whose step is exact
        for _ in range(iterations):
            product = (direction @ self.table.T).mul_(curvature) @ self.table + self.penalty * direction
            share = square / (direction * product).sum(1, keepdim=True).clamp(min=tiny)
            step = step + share * direction
            residual = residual - share * product
            before, square = square, residual.square().sum(1, keepdim=True)
            direction = residual + square / before.clamp(min=tiny) * direction
        return step
