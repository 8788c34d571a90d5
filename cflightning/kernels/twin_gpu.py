"""The GPU's fused step in plain torch, same rule and same arithmetic: slow, and what tests hold the kernel to."""

from __future__ import annotations

import torch
from torch import Tensor

from cflightning.kernels.adagrad import BIAS, GPU_BLOCK, L2, L2_BIAS, STEP, V_BIAS, V_FACTORS


def stage_twin(
    user: Tensor, item: Tensor, target: Tensor, order: Tensor, users: Tensor, items: Tensor, user_side: Tensor,
    item_side: Tensor, bias: Tensor, c: float, lr: float, lrb: float, lrg: float, eps: float, *,
    programs: int = 1, ratings: int = 16,
) -> Tensor:  # fmt: skip
    """Train on some blocks; arguments and result as those of `fused_dot_gpu.train_stage`, any device.

    Gradients of `ratings` ratings are taken before any of them updates; a row that comes twice gets the sum of the
    changes. With several programs, one runs after the other, as under Triton's interpreter. `ratings` may be any
    number: a large one shows what as many ratings in flight do at worst.
    """
    within = torch.arange(GPU_BLOCK, device=user.device)
    positions = (order.long()[:, None] * GPU_BLOCK + within).reshape(-1)
    units = torch.split(positions, ratings)
    loss = torch.zeros((), dtype=torch.float64, device=user.device)
    for unit in (unit for program in range(programs) for unit in units[program::programs]):
        at = unit[unit < len(user)]
        rows = user[at].long(), item[at].long()
        p, q = users[rows[0]], items[rows[1]]  # copies [ratings, dim]
        sides = user_side[rows[0]], item_side[rows[1]]
        s = torch.sigmoid(bias + sides[0][:, BIAS] + sides[1][:, BIAS] + (p * q).sum(1))
        error = s - target[at]
        g = c * error * s * (1 - s)
        loss += error.square().sum(dtype=torch.float64)
        for row, table, side, before, own, other in zip(
            rows, (users, items), (user_side, item_side), sides, (p, q), (q, p), strict=True
        ):
            seen = g.square() * other.square().sum(1) / p.shape[1]
            rate = lr * before[:, STEP] / ((before[:, V_FACTORS] + seen).sqrt() + eps)
            bias_rate = lrb * before[:, STEP] / ((before[:, V_BIAS] + g.square()).sqrt() + eps)
            table.index_add_(0, row, -rate[:, None] * (g[:, None] * other + before[:, L2, None] * own))
            costs = before[:, L2_BIAS]
            change = bias_rate * (g + costs * before[:, BIAS]) / (1 + bias_rate * costs)
            side[:, BIAS].index_add_(0, row, -change)
            side[:, V_FACTORS].index_add_(0, row, seen)
            side[:, V_BIAS].index_add_(0, row, g.square())
        bias -= lrg * g.sum()
    return loss
