"""The fused step in plain torch, same order and same arithmetic: slow, and what tests hold the compiled one to."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from cflightning.kernels.adagrad import BIAS, L2, L2_BIAS, STEP, V_BIAS, V_FACTORS
from cflightning.kernels.fused_dot import GROUP
from cflightning.kernels.layout import BLOCK


def cells_twin(
    user: Any, item: Any, target: Any, starts: Any, blocks: Any, order: Any, cells: Any, taken: Any, biases: Any,
    squares: Any, users: Any, items: Any, user_side: Any, item_side: Any, *constants: Any,
) -> None:  # fmt: skip
    """All cells; arguments as those of `fused_dot.kernel`, arrays updated in place."""
    tables = users, items, user_side, item_side
    for number, cell in enumerate(cells):
        low, high, own = starts[cell], starts[cell + 1], order[blocks[cell] : blocks[cell + 1]]
        biases[number], squares[number] = _cell((user, item, target), low, high, own, tables, *constants)
    taken[0] += len(cells)


def _cell(
    columns: Any, low: int, high: int, order: Any, arrays: Any, bias: Any, c: Any, lr: Any, lrb: Any, lrg: Any,
    eps: Any,
) -> tuple[np.float32, float]:  # fmt: skip
    """One cell: its global bias and its sum of squared errors."""
    user, item, targets = map(torch.from_numpy, columns)
    rows, loss = (user.long(), item.long()), 0.0
    users, items, user_side, item_side = map(torch.from_numpy, arrays)
    tables, sides = (users, items), (user_side, item_side)
    bias, c, lr, lrb, lrg, eps = (torch.tensor(value, dtype=torch.float32) for value in (bias, c, lr, lrb, lrg, eps))
    for block in order:
        begin = low + int(block) * BLOCK
        total = squares = torch.zeros(())
        for first in range(begin, min(begin + BLOCK, high), GROUP):
            part = slice(first, min(first + GROUP, begin + BLOCK, high))
            at = [column[part] for column in rows]
            p, q = (table[row] for table, row in zip(tables, at, strict=True))  # copies [group, dim]
            side = [table[row] for table, row in zip(sides, at, strict=True)]
            s = torch.sigmoid(bias + side[0][:, BIAS] + side[1][:, BIAS] + (p * q).sum(1))
            error = s - targets[part]
            g = c * error * s * (1 - s)
            squares, total = squares + error.square().sum(), total + g.sum()
            rates = []
            for row, table, before, other in zip(at, sides, side, (q, p), strict=True):
                seen = g.square() * other.square().sum(1) / p.shape[1]
                rates.append(lr * before[:, STEP] / ((before[:, V_FACTORS] + seen).sqrt() + eps))
                rate = lrb * before[:, STEP] / ((before[:, V_BIAS] + g.square()).sqrt() + eps)
                costs = before[:, L2_BIAS]
                change = rate * (g + costs * before[:, BIAS]) / (1 + rate * costs)
                table[:, BIAS].index_add_(0, row, -change)
                table[:, V_FACTORS].index_add_(0, row, seen)
                table[:, V_BIAS].index_add_(0, row, g.square())
            for j in range(len(g)):  # one rating after the other: a row that comes twice gets both changes
                a, b = (int(row[j]) for row in at)
                x, y = tables[0][a].clone(), tables[1][b].clone()
                tables[0][a] -= rates[0][j] * (g[j] * y + side[0][j, L2] * x)
                tables[1][b] -= rates[1][j] * (g[j] * x + side[1][j, L2] * y)
        bias, loss = bias - lrg * total, loss + float(squares)
    return np.float32(bias), loss
