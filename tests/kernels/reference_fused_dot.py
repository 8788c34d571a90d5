"""Reference of the fused step in plain torch: the same order and arithmetic as `fused_dot.kernel`, slowly."""

import numpy as np
import torch

from cflightning.kernels.adagrad import BIAS, L2, L2_BIAS, STEP, V_BIAS, V_FACTORS
from cflightning.kernels.fused_dot import GROUP
from cflightning.kernels.rating_layout import BLOCK


def reference_cells(
    user, item, target, starts, blocks, order, cells, taken, cell_biases, squared_errors, users, items, user_state,
    item_state, *constants,
):  # fmt: skip
    """Train on all cells; the arguments are those of `fused_dot.kernel`, arrays are updated in place."""
    tables = users, items, user_state, item_state
    for number, cell in enumerate(cells):
        low, high, own = starts[cell], starts[cell + 1], order[blocks[cell] : blocks[cell + 1]]
        cell_biases[number], squared_errors[number] = _cell((user, item, target), low, high, own, tables, *constants)
    taken[0] += len(cells)


def _cell(columns, low, high, order, arrays, *constants):
    """Train on one cell; returns its global bias and its sum of squared errors."""
    user, item, targets = map(torch.from_numpy, columns)
    indices, loss = (user.long(), item.long()), 0.0
    users, items, user_state, item_state = map(torch.from_numpy, arrays)
    tables, states = (users, items), (user_state, item_state)
    constants = (torch.tensor(value, dtype=torch.float32) for value in constants)
    bias, gradient_factor, rate_factors, rate_biases, rate_global, eps = constants
    for block in order:
        begin = low + int(block) * BLOCK
        total = squares = torch.zeros(())
        for first in range(begin, min(begin + BLOCK, high), GROUP):
            part = slice(first, min(first + GROUP, begin + BLOCK, high))
            at = [column[part] for column in indices]
            p, q = (table[index] for table, index in zip(tables, at, strict=True))  # copies [group, dim]
            before = [table[index] for table, index in zip(states, at, strict=True)]
            s = torch.sigmoid(bias + before[0][:, BIAS] + before[1][:, BIAS] + (p * q).sum(1))
            error = s - targets[part]
            g = gradient_factor * error * s * (1 - s)
            squares, total = squares + error.square().sum(), total + g.sum()
            rates = []
            for index, table, state, other in zip(at, states, before, (q, p), strict=True):
                added = g.square() * other.square().sum(1) / p.shape[1]
                rates.append(rate_factors * state[:, STEP] / ((state[:, V_FACTORS] + added).sqrt() + eps))
                rate = rate_biases * state[:, STEP] / ((state[:, V_BIAS] + g.square()).sqrt() + eps)
                change = rate * (g + state[:, L2_BIAS] * state[:, BIAS]) / (1 + rate * state[:, L2_BIAS])
                table[:, BIAS].index_add_(0, index, -change)
                table[:, V_FACTORS].index_add_(0, index, added)
                table[:, V_BIAS].index_add_(0, index, g.square())
            for j in range(len(g)):  # one rating after the other: an index that occurs twice gets both changes
                a, b = (int(index[j]) for index in at)
                x, y = tables[0][a].clone(), tables[1][b].clone()
                tables[0][a] -= rates[0][j] * (g[j] * y + before[0][j, L2] * x)
                tables[1][b] -= rates[1][j] * (g[j] * x + before[1][j, L2] * y)
        bias, loss = bias - rate_global * total, loss + float(squares)
    return np.float32(bias), loss
