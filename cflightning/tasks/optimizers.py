"""Optimiser and learning-rate schedule of a task: its own choice, the engine's, or those that were asked for."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig

from cflightning.engines.base import EngineSpec
from cflightning.engines.schedule import one_cycle_schedule
from cflightning.errors import CheckpointError, ConfigError
from cflightning.tasks.described import make_described

if TYPE_CHECKING:
    from cflightning.tasks.rating import RatingTask

log = logging.getLogger(__name__)
MAX_BATCH_RATIO = 8.0
"""Batch size, as a multiple of the default, up to which the optimiser is scaled; at 10 no average would be left."""


def configure(
    task: RatingTask, spec: EngineSpec | None, parameters: Sequence[torch.nn.Parameter], batch_ratio: float
) -> OptimizerLRSchedulerConfig:
    """Fused AdamW, or the engine's own, with one cycle over the whole training, unless others were asked for.

    Args:
        task: that has a Trainer and a network. (What was asked for is made from descriptions, and only now: before the
            network there are no parameters to give to an optimiser.)
        spec: parts of the engine; None for autograd.
        parameters: to be trained.
        batch_ratio: batch size as a multiple of the default.
    """
    optimizer: torch.optim.Optimizer
    if spec is None:
        optimizer = _fused_adamw(task, parameters, batch_ratio)
    else:
        default = spec.default_learning_rate(task.trainer.max_epochs, task.svdpp)
        optimizer = spec.make_optimizer(default if task.learning_rate is None else task.learning_rate)
    if task.optimizer:
        optimizer = make_described(task.optimizer, "optimizer", torch.optim.Optimizer, parameters)
    if task.lr_scheduler:
        kinds = torch.optim.lr_scheduler.LRScheduler, torch.optim.lr_scheduler.ReduceLROnPlateau
        scheduler = make_described(task.lr_scheduler, "lr_scheduler", kinds, optimizer)
        # Schedules that count steps (OneCycleLR) are stepped by them, others by epochs, as Lightning does.
        interval = "step" if hasattr(scheduler, "total_steps") else "epoch"
        described = {"scheduler": scheduler, "interval": interval}
        if task.automatic_optimization:
            described["monitor"] = _monitored(scheduler)  # used by ReduceLROnPlateau alone
        return {"optimizer": optimizer, "lr_scheduler": described}  # type: ignore[typeddict-item]
    if task.optimizer or (spec is not None and not spec.scheduled):
        return {"optimizer": optimizer}  # type: ignore[typeddict-item]
    if task.trainer.max_epochs == -1 and task.trainer.max_steps == -1:
        log.info("the number of epochs is open, so the learning rate stays at %g", optimizer.param_groups[0]["lr"])
        return {"optimizer": optimizer}  # type: ignore[typeddict-item]
    schedule = one_cycle_schedule(optimizer, lambda: task.trainer.estimated_stepping_batches)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def check_states(optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """Refuse restored states that do not fit their parameters: torch's fused steps trust their sizes.

    Args:
        optimizers: As a checkpoint has left them.

    Raises:
        CheckpointError: A state has another shape, type or layout than its parameter.
    """
    fused = torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad
    for optimizer in optimizers:
        if not isinstance(optimizer, fused):
            continue
        for parameter, state in optimizer.state.items():
            for name, value in state.items():
                fits = not isinstance(value, torch.Tensor) or (
                    value.numel() == 1
                    if name == "step"
                    else value.shape == parameter.shape
                    and value.dtype == parameter.dtype
                    and value.is_contiguous() == parameter.is_contiguous()
                )
                if not fits:
                    raise CheckpointError(
                        f"checkpoint: the optimiser's {str(name)[:40]} must be as its parameter is, {parameter.dtype} "
                        f"{list(parameter.shape)}, got {value.dtype} {list(value.shape)}; was it edited?"
                    )


def step_schedules(trainer: Trainer, interval: str) -> None:
    """What Lightning does where it has the optimisation, for tasks whose engine has it.

    Args:
        trainer: whose schedules are stepped.
        interval: that has passed, `step` or `epoch`.

    Raises:
        ConfigError: a schedule goes by a metric that is not there.
    """
    for described in trainer.lr_scheduler_configs:
        if described.interval != interval:
            continue
        schedule: Any = described.scheduler
        if not isinstance(schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
            schedule.step()
        elif (value := trainer.callback_metrics.get(_monitored(schedule))) is not None:
            schedule.step(value)
        else:
            known = ", ".join(sorted(trainer.callback_metrics)) or "none"
            raise ConfigError(f"--lr_scheduler.monitor: must be measured, got {_monitored(schedule)} of {known}")


def _fused_adamw(
    task: RatingTask, parameters: Sequence[torch.nn.Parameter], batch_ratio: float
) -> torch.optim.Optimizer:
    """AdamW whose rate and averages span the same number of ratings whatever the batch size.

    Rate and averages follow the square-root scaling rule (Malladi et al. 2022, "On the SDEs and Scaling Rules for
    Adaptive Gradient Algorithms"): the rate grows with the root of the batch size, and the share of the newest gradient
    in both averages with the batch size itself. On slices of the training parts a batch four times the default then
    costs at most .0002 RMSE instead of .02 to .025.
    """
    tables = [one for one in parameters if one.ndim > 0]
    free = [one for one in parameters if one.ndim == 0]
    groups = [{"params": tables, "weight_decay": task.weight_decay}, {"params": free, "weight_decay": 0.0}]
    ratio = min(batch_ratio, MAX_BATCH_RATIO)
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=0.01 * math.sqrt(ratio) if task.learning_rate is None else task.learning_rate,
        betas=(1 - 0.1 * ratio, 1 - 0.05 * ratio),  # 0.999 lags behind sparse gradients: .003 to .009 RMSE worse
        fused=task.device.type in {"cpu", "cuda"},
    )


def _monitored(scheduler: Any) -> str:
    """The metric that a scheduler goes by; Lightning's ReduceLROnPlateau names one."""
    return str(getattr(scheduler, "monitor", "val/rmse"))
