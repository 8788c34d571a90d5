"""New users by cross-entropy: vectors that tell a user's items from the rest of a catalogue whose vectors are given.

For a user with items S, n of them, and with scores ``x_i = <p, q_i> + b_i + a`` this minimises over p and a::

    1/n sum over S of log(1 + exp(-x_i))  +  negatives / I * sum over all i of log(1 + exp(x_i))
        + l2 * (1 + negatives) / 2 * |p|^2

with I the number of items: what training by sampled negatives (Rendle et al. 2020) minimises for a user in expectation.
Item vectors are first brought to a mean length of 1, so that the penalty means the same whatever trained them. The
problem is convex: Newton's method, each step by conjugate gradients (Nocedal & Wright 2006, algorithm 7.1), for a block
of users at a time, so that all work is in products of tables.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from cflightning.errors import DataError
from cflightning.solvers.interactions import Side

NEWTON, GRADIENTS, HALVINGS = 5, 8, 4
"""Steps, iterations in each, and halvings of one that overshoots. The same top 10 as with twice as many of each."""
SCORES, USERS = 1 << 20, 256
"""Scores and users at a time at most; 4 MB in each of a few tables."""
ROUNDING = 1e-5
"""By what share a sum can seem to rise that has reached its minimum."""


def fold_in(
    item_vectors: Tensor, item_bias: Tensor, given: Side, *, negatives: float = 8.0, l2: float = 0.005
) -> Tensor:
    """Vectors of new users.

    Args:
        item_vectors: float32 [num_items, dim].
        item_bias: float32 [num_items]; what popular items are preferred by.
        given: the items of every user, row 0 not among them; values are not looked at.
        negatives: weight of the whole catalogue, in items of the user.
        l2: penalty. .005 is about the best for bce, bpr and softmax alike on users held out of MovieLens.

    Returns:
        float32 [users, dim]; zeros for a user without items.

    Raises:
        DataError: the tables do not fit, or a user has an item that is not there.
    """
    num_items, dim = item_vectors.shape
    if item_bias.shape != (num_items,):
        raise DataError(f"fold_in: item_bias must be [{num_items}], as item_vectors, got {[*item_bias.shape]}")
    if len(given.rows) and (most := int(given.rows.max())) >= num_items:
        raise DataError(f"fold_in: items must be below {num_items}, got {most}")
    known = item_vectors.norm(dim=1)
    length = float(known.sum()) / max(int((known > 0).sum()), 1) or 1.0
    table = torch.cat([item_vectors / length, item_vectors.new_ones(num_items, 1)], 1)
    weights = item_bias.new_full((num_items,), negatives / max(num_items - 1, 1))
    weights[0] = 0  # the unknown item is nobody's choice
    penalty = table.new_full((dim + 1,), l2 * (1 + negatives))
    penalty[-1] = 0
    users = len(given.counts)
    block = min(max(SCORES // num_items, 1), USERS)
    found = item_vectors.new_zeros(users, dim)
    for begin in range(0, users, block):
        some = given.part(begin, begin + block)
        counts = some.counts
        here = len(counts)
        chosen = table.new_zeros(block, num_items)  # a full block: so every product is computed the same way
        chosen[torch.repeat_interleave(torch.arange(here), counts), some.rows.long()] = 1
        chosen[:here] /= counts.clamp(min=1)[:, None]
        solved = Problem(table, item_bias, chosen, weights, penalty).solve()[:here, :-1] / length
        found[begin : begin + block] = torch.where(counts[:, None] > 0, solved, 0)
    return found


class Problem:
    """The sum at the top of this module for some users, in unknowns ``y = (p, a)``.

    Args:
        table: float32 [num_items, dim + 1], item vectors and ones.
        bias: float32 [num_items].
        chosen: float32 [users, num_items], 1 / n for items of the user.
        weights: float32 [num_items], of every item as a negative.
        penalty: float32 [dim + 1].
    """

    def __init__(self, table: Tensor, bias: Tensor, chosen: Tensor, weights: Tensor, penalty: Tensor) -> None:
        self.table, self.bias, self.chosen, self.weights, self.penalty = table, bias, chosen, weights, penalty

    def solve(self) -> Tensor:
        """The minima: float32 [users, dim + 1]."""
        y = self.table.new_zeros(len(self.chosen), self.table.shape[1])
        loss, scores = self.loss(y)
        for _ in range(NEWTON):
            chance = scores.sigmoid_()
            slope = (self.weights * chance - self.chosen * (1 - chance)) @ self.table + self.penalty * y
            step = self._newton(slope, chance * (1 - chance) * (self.weights + self.chosen))
            taken = y + step
            after, scores = self.loss(taken)
            for _ in range(HALVINGS):
                worse = ~(after <= loss + ROUNDING * loss.abs())
                if not bool(worse.any()):
                    break
                step = torch.where(worse[:, None], step / 2, step)
                taken = y + step
                after, scores = self.loss(taken)
            y, loss = taken, after
        return y

    def loss(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """What is minimised, float32 [users], and the scores, float32 [users, num_items]."""
        scores = torch.addmm(self.bias, y, self.table.T)
        costs = softplus(scores)
        costs = costs @ self.weights + ((costs - scores) * self.chosen).sum(1)  # softplus(-x) = softplus(x) - x
        return costs + (self.penalty * y.square()).sum(1) / 2, scores

    def _newton(self, slope: Tensor, bend: Tensor) -> Tensor:
        """The step that would end at the minimum if the sum were quadratic, by conjugate gradients.

        Args:
            slope: float32 [users, dim + 1], gradients.
            bend: float32 [users, num_items], second derivatives by the scores.
        """
        step, rest = torch.zeros_like(slope), -slope
        way, square = rest, rest.square().sum(1, keepdim=True)
        tiny = torch.finfo(slope.dtype).tiny  # what is solved already divides 0 by it
        for _ in range(GRADIENTS):
            bent = (way @ self.table.T).mul_(bend) @ self.table + self.penalty * way
            share = square / (way * bent).sum(1, keepdim=True).clamp(min=tiny)
            step = step + share * way
            rest = rest - share * bent
            before, square = square, rest.square().sum(1, keepdim=True)
            way = rest + square / before.clamp(min=tiny) * way
        return step
