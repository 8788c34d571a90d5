"""Reference of the sampled logistic step in plain numpy: the same draws and order as the compiled one, slowly."""

import numpy as np

from cflightning.kernels.logistic_cells import GRID, next_samples
from cflightning.kernels.prng import shuffle
from cflightning.kernels.sampled_logistic import BATCH, MIN_PROBABILITY, WINDOW


def reference_kernel(dim):
    """Return a function with the arguments of `sampled_logistic.kernel(dim)`."""

    def train_cells(
        user, item, starts, candidates, ends, negative_user, cuts, states, cells, size, taken, biases, losses, users,
        items, user_bias, item_bias, start_bias, lr, l2,
    ):  # fmt: skip
        while taken[0] < len(cells):
            number, cell = taken[0], cells[taken[0]]
            taken[0] += 1
            a, b = divmod(cell, GRID)
            order, negatives = np.arange(starts[cell], starts[cell + 1]), negative_user[cuts[a, b] : cuts[a, b + 1]]
            state, cursor = shuffle(order, states[cell]), np.zeros(2, np.int64)
            owner, first = np.empty(WINDOW, np.int64), np.zeros(WINDOW + 1, np.int64)
            sample, sign = np.empty(WINDOW * size, np.int64), np.empty(WINDOW * size, np.float32)
            bias, loss = start_bias, 0.0
            while True:
                group = candidates[ends[b] : ends[b + 1]]
                here, state = next_samples(
                    user, item, order, negatives, group, size, cursor, np.uint64(state), owner, first, sample, sign
                )
                if here == 0:
                    break
                for begin in range(0, here, BATCH):
                    groups = [
                        (owner[v], sample[first[v] : first[v + 1]], sign[first[v] : first[v + 1]])
                        for v in range(begin, min(begin + BATCH, here))
                    ]
                    bias, more = _batch(groups, users, items, user_bias, item_bias, bias, lr, l2)
                    loss += more
            biases[number], losses[number] = bias, loss

    return train_cells


def _batch(groups, users, items, user_bias, item_bias, bias, lr, l2):
    """Train on groups whose gradients are computed together; returns the global bias and the loss."""
    keep, loss, gradients = np.float32(1 - lr * l2), 0.0, []
    for u, samples, sign in groups:
        score = bias + user_bias[u] + item_bias[samples] + items[samples] @ users[u]
        right = 1 / (1 + np.exp(-np.clip(sign * score, -15.8, 15.8).astype(np.float64)))
        gradients.append((lr * sign * (1 - right)).astype(np.float32))
        loss -= np.log(np.maximum(right, MIN_PROBABILITY)).sum()
    for (u, samples, _), gradient in zip(groups, gradients, strict=True):
        p, change = users[u].copy(), np.zeros_like(users[u])
        for i, g in zip(samples, gradient, strict=True):
            change += g * items[i]
            items[i] = keep * items[i] + g * p
            item_bias[i] = keep * item_bias[i] + g
        users[u] = keep ** len(samples) * p + change
        user_bias[u] = keep ** len(samples) * user_bias[u] + gradient.sum()
        bias += gradient.sum()
    return np.float32(bias), float(loss)
