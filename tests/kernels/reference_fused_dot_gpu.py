"""Reference of the GPU's fused step in plain torch: the same rule and arithmetic as `fused_dot_gpu.train_stage`."""

import torch

from cflightning.kernels.adagrad import BIAS, GPU_BLOCK, L2, L2_BIAS, STEP, V_BIAS, V_FACTORS


def reference_stage(
    user, item, target, order, users, items, user_state, item_state, bias, gradient_factor, rate_factors, rate_biases,
    rate_global, eps, *, programs=1, ratings=16,
):  # fmt: skip
    """Train on some blocks; arguments and result are those of `fused_dot_gpu.train_stage`, on any device.

    The gradients of `ratings` ratings are computed before any of them updates; an index that occurs twice gets the sum
    of the changes. Several programs run one after the other, as under Triton's interpreter. `ratings` may be any
    number: a large one shows the worst case of as many ratings in flight.
    """
    within = torch.arange(GPU_BLOCK, device=user.device)
    positions = (order.long()[:, None] * GPU_BLOCK + within).reshape(-1)
    units = torch.split(positions, ratings)
    loss = torch.zeros((), dtype=torch.float64, device=user.device)
    for unit in (unit for program in range(programs) for unit in units[program::programs]):
        at = unit[unit < len(user)]
        indices = user[at].long(), item[at].long()
        p, q = users[indices[0]], items[indices[1]]  # copies [ratings, dim]
        states = user_state[indices[0]], item_state[indices[1]]
        s = torch.sigmoid(bias + states[0][:, BIAS] + states[1][:, BIAS] + (p * q).sum(1))
        error = s - target[at]
        g = gradient_factor * error * s * (1 - s)
        loss += error.square().sum(dtype=torch.float64)
        for index, table, state, before, own, other in zip(
            indices, (users, items), (user_state, item_state), states, (p, q), (q, p), strict=True
        ):
            added = g.square() * other.square().sum(1) / p.shape[1]
            rate = rate_factors * before[:, STEP] / ((before[:, V_FACTORS] + added).sqrt() + eps)
            bias_rate = rate_biases * before[:, STEP] / ((before[:, V_BIAS] + g.square()).sqrt() + eps)
            table.index_add_(0, index, -rate[:, None] * (g[:, None] * other + before[:, L2, None] * own))
            change = bias_rate * (g + before[:, L2_BIAS] * before[:, BIAS]) / (1 + bias_rate * before[:, L2_BIAS])
            state[:, BIAS].index_add_(0, index, -change)
            state[:, V_FACTORS].index_add_(0, index, added)
            state[:, V_BIAS].index_add_(0, index, g.square())
        bias -= rate_global * g.sum()
    return loss
