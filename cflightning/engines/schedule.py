"""The one-cycle learning-rate schedule."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch.optim.lr_scheduler import LambdaLR

WARMUP, START, END = 0.25, 0.04, 1e-3
"""Share of the steps that go up, and factors of the learning rate at the first and the last step, as in fastai."""


def one_cycle(step: int, total: int) -> float:
    """Return the factor of the learning rate: cosine from `START` up to 1, then cosine down to `END`.

    Smith & Topin 2018, with the numbers of fastai's `fit_one_cycle`. Steps past the end stay at `END`.

    Args:
        step: Number of the step, from 0.
        total: Steps of the whole training.
    """
    peak = WARMUP * total
    if step < peak:
        low, share = START, step / peak
    else:
        low, share = END, 1 - min((step - peak) / max(total - 1 - peak, 1), 1)
    return low + (1 - low) * (1 - math.cos(math.pi * share)) / 2


def one_cycle_schedule(optimizer: torch.optim.Optimizer, total: Callable[[], int | float]) -> LambdaLR:
    """Make a torch scheduler of `one_cycle` that steps after every batch.

    Unlike `torch.optim.lr_scheduler.OneCycleLR` it does not store the total: a resumed run with more epochs follows the
    longer schedule instead of failing at the old end.

    Args:
        optimizer: Optimiser whose learning rate is scheduled.
        total: Returns the steps of the whole training; called at the first step. (Lightning's estimate sets up the
            training batches, and batches that are set up before a checkpoint is restored start from the beginning.)
    """
    steps = functools.cache(total)
    return LambdaLR(optimizer, lambda step: one_cycle(step, int(steps())) if step else one_cycle(0, 1))
