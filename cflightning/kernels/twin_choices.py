"""The fused step of choices in plain numpy, same draws and order: slow, and what tests hold the compiled one to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cflightning.kernels.choice_cells import GRID, draw, shuffle
from cflightning.kernels.choices import BATCH, LEAST, WINDOW


def twin(dim: int) -> Callable[..., None]:
    """All cells one after the other; arguments as those of `choices.kernel`, arrays updated in place."""

    def take_cells(
        user: Any, item: Any, starts: Any, drawn: Any, ends: Any, asking: Any, cuts: Any, states: Any, cells: Any,
        size: int, taken: Any, biases: Any, losses: Any, users: Any, items: Any, user_bias: Any, item_bias: Any,
        start_bias: Any, lr: Any, l2: Any,
    ) -> None:  # fmt: skip
        while taken[0] < len(cells):
            number, cell = taken[0], cells[taken[0]]
            taken[0] += 1
            a, b = divmod(cell, GRID)
            order, asked = np.arange(starts[cell], starts[cell + 1]), asking[cuts[a, b] : cuts[a, b + 1]]
            state, cursor = shuffle(order, states[cell]), np.zeros(2, np.int64)
            owner, first = np.empty(WINDOW, np.int64), np.zeros(WINDOW + 1, np.int64)
            row, sign = np.empty(WINDOW * size, np.int64), np.empty(WINDOW * size, np.float32)
            bias, loss = start_bias, 0.0
            while True:
                from_items = drawn[ends[b] : ends[b + 1]]
                here, state = draw(
                    user, item, order, asked, from_items, size, cursor, np.uint64(state), owner, first, row, sign
                )
                if here == 0:
                    break
                for begin in range(0, here, BATCH):
                    groups = [
                        (owner[v], row[first[v] : first[v + 1]], sign[first[v] : first[v + 1]])
                        for v in range(begin, min(begin + BATCH, here))
                    ]
                    bias, more = _batch(groups, users, items, user_bias, item_bias, bias, lr, l2)
                    loss += more
            biases[number], losses[number] = bias, loss

    return take_cells


def _batch(
    groups: Any, users: Any, items: Any, user_bias: Any, item_bias: Any, bias: Any, lr: Any, l2: Any
) -> tuple[np.float32, float]:
    """Groups whose gradients are taken together: the global bias after them and their loss."""
    keep, loss, gradients = np.float32(1 - lr * l2), 0.0, []
    for u, rows, sign in groups:
        score = bias + user_bias[u] + item_bias[rows] + items[rows] @ users[u]
        right = 1 / (1 + np.exp(-np.clip(sign * score, -15.8, 15.8).astype(np.float64)))
        gradients.append((lr * sign * (1 - right)).astype(np.float32))
        loss -= np.log(np.maximum(right, LEAST)).sum()
    for (u, rows, _), gradient in zip(groups, gradients, strict=True):
        p, change = users[u].copy(), np.zeros_like(users[u])
        for i, g in zip(rows, gradient, strict=True):
            change += g * items[i]
            items[i] = keep * items[i] + g * p
            item_bias[i] = keep * item_bias[i] + g
        users[u] = keep ** len(rows) * p + change
        user_bias[u] = keep ** len(rows) * user_bias[u] + gradient.sum()
        bias += gradient.sum()
    return np.float32(bias), float(loss)
