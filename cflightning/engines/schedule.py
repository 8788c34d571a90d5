"""The one-cycle learning-rate schedule."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch.optim.lr_scheduler import LambdaLR


def one_cycle(step: int, total: int, warmup: float = 0.25, start: float = 0.04, end: float = 1e-3) -> float:
    """Factor of the learning rate at `step` of `total`: cosine up from `start` to 1, then cosine down to `end`.

    Smith & Topin 2018; shares as in fastai's `fit_one_cycle`. Steps past the end stay at `end`.

    Args:
        step: 0, 1, …
        total: steps of the whole training.
        warmup: share of the steps that go up.
        start: factor at step 0.
        end: factor at the last step.
    """
    peak = warmup * total
    if step < peak:
        low, share = start, step / peak
    else:
        low, share = end, 1 - min((step - peak) / max(total - 1 - peak, 1), 1)
    return low + (1 - low) * (1 - math.cos(math.pi * share)) / 2


def one_cycle_schedule(optimizer: torch.optim.Optimizer, total: Callable[[], int | float]) -> LambdaLR:
    """`one_cycle` as a torch scheduler, to be stepped every batch.

    Unlike `torch.optim.lr_scheduler.OneCycleLR` it keeps no total in its state: a resumed run with more epochs follows
    the longer schedule instead of failing at the old end.

    Args:
        optimizer: whose learning rate is scheduled.
        total: steps of the whole training; asked at the first step, not before. (Lightning's estimate sets up the
            training batches, and batches that are set up before a checkpoint is restored start from the beginning.)
    """
    steps = functools.cache(total)
    return LambdaLR(optimizer, lambda step: one_cycle(step, int(steps())) if step else one_cycle(0, 1))
