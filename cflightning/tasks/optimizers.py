"""Optimiser and learning-rate schedule of a task: its defaults, those of the engine, or configured ones."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig

from cflightning.engines.base import Engine
from cflightning.engines.schedule import one_cycle_schedule
from cflightning.errors import CheckpointError, ConfigError
from cflightning.tasks.base import NetworkTask

log = logging.getLogger(__name__)
MAX_BATCH_RATIO = 8.0
"""Batch size, as a multiple of the default, up to which AdamW is scaled; at 10 its averages would have no memory."""


def make_optimizer_and_schedule(
    task: NetworkTask, engine: Engine | None, batch_ratio: float
) -> OptimizerLRSchedulerConfig:
    """Return the optimiser and the schedule: fused AdamW or the engine's optimiser, with one cycle, by default.

    Args:
        task: Task whose networks are trained.
        engine: Engine that trains; None for autograd.
        batch_ratio: Batch size as a multiple of the default.
    """
    trainer = task.trainer
    parameters = [
        parameter for network in task.ensemble.networks for parameter in network.parameters()
        if engine is not None or parameter.requires_grad
    ]  # fmt: skip
    optimizer: torch.optim.Optimizer
    if engine is None:
        optimizer = _fused_adamw(task, parameters, batch_ratio)
    else:
        rate = task.learning_rate
        default = engine.default_learning_rate(trainer.max_epochs, task.svdpp)
        optimizer = engine.make_optimizer(default if rate is None else rate)
    if task.optimizer:
        optimizer = instantiate_from_config(task.optimizer, "optimizer", torch.optim.Optimizer, parameters)
    if task.lr_scheduler:
        kinds = torch.optim.lr_scheduler.LRScheduler, torch.optim.lr_scheduler.ReduceLROnPlateau
        scheduler = instantiate_from_config(task.lr_scheduler, "lr_scheduler", kinds, optimizer)
        # Schedules that count steps (OneCycleLR) are stepped by them, others by epochs, as Lightning does.
        interval = "step" if hasattr(scheduler, "total_steps") else "epoch"
        config = {"scheduler": scheduler, "interval": interval}
        if engine is None:  # only in automatic optimisation
            config["monitor"] = _monitored_metric(scheduler)  # used by ReduceLROnPlateau alone
        return {"optimizer": optimizer, "lr_scheduler": config}  # type: ignore[typeddict-item]
    if task.optimizer or (engine is not None and not engine.scheduled):
        return {"optimizer": optimizer}  # type: ignore[typeddict-item]
    if trainer.max_epochs == -1 and trainer.max_steps == -1:
        log.info("the number of epochs is open, so the learning rate stays at %g", optimizer.param_groups[0]["lr"])
        return {"optimizer": optimizer}  # type: ignore[typeddict-item]
    schedule = one_cycle_schedule(optimizer, lambda: trainer.estimated_stepping_batches)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def instantiate_from_config(
    config: Mapping[str, Any], option: str, kinds: type[Any] | tuple[type[Any], ...], *args: Any
) -> Any:
    """Make the object that a configuration names.

    Only imported classes are used, as the configuration may be a checkpoint's.

    Args:
        config: `class_path` and `init_args`.
        option: Option of the configuration, for the message.
        kinds: Permitted classes of the object.
        args: Positional arguments.

    Raises:
        ConfigError: There is no such class.
    """
    module, _, name = str(config.get("class_path", "")).rpartition(".")
    kind = getattr(sys.modules.get(module), name, None)
    if not (isinstance(kind, type) and issubclass(kind, kinds)):
        raise ConfigError(
            f"--{option}: {config.get('class_path')!r} is not an imported {option}; import its package first"
        )
    return kind(*args, **config.get("init_args", {}))


def check_states(optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """Refuse restored optimiser states that do not fit their parameters; torch's fused steps rely on their sizes.

    Args:
        optimizers: Optimisers with the states of a checkpoint.

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
    """Step the learning-rate schedules as Lightning does in automatic optimisation, for tasks with an engine.

    Args:
        trainer: Trainer of the schedules.
        interval: `step` or `epoch`, which has ended.

    Raises:
        ConfigError: A schedule monitors a metric that is not logged.
    """
    for config in trainer.lr_scheduler_configs:
        if config.interval != interval:
            continue
        schedule: Any = config.scheduler
        if not isinstance(schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
            schedule.step()
        elif (value := trainer.callback_metrics.get(_monitored_metric(schedule))) is not None:
            schedule.step(value)
        else:
            known = ", ".join(sorted(trainer.callback_metrics)) or "none"
            raise ConfigError(f"--lr_scheduler.monitor: must be measured, got {_monitored_metric(schedule)} of {known}")


def _fused_adamw(
    task: NetworkTask, parameters: Sequence[torch.nn.Parameter], batch_ratio: float
) -> torch.optim.Optimizer:
    """Make AdamW with a rate and averages that span the same number of ratings whatever the batch size.

    Both follow the square-root scaling rule (Malladi et al. 2022, "On the SDEs and Scaling Rules for Adaptive Gradient
    Algorithms"): the rate grows with the root of the batch size, and the share of the newest gradient in both averages
    with the batch size itself. On slices of the training parts a batch four times the default then costs at most .0002
    RMSE instead of .02 to .025.
    """
    tables = [parameter for parameter in parameters if parameter.ndim > 0]
    scalars = [parameter for parameter in parameters if parameter.ndim == 0]
    groups = [{"params": tables, "weight_decay": task.weight_decay}, {"params": scalars, "weight_decay": 0.0}]
    ratio = min(batch_ratio, MAX_BATCH_RATIO)
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=0.01 * math.sqrt(ratio) if task.learning_rate is None else task.learning_rate,
        betas=(1 - 0.1 * ratio, 1 - 0.05 * ratio),  # 0.999 lags behind sparse gradients: .003 to .009 RMSE worse
        fused=all(parameter.device.type in {"cpu", "cuda"} for parameter in parameters),
    )


def _monitored_metric(scheduler: Any) -> str:
    """Return the metric that a schedule monitors, by default `val/rmse`."""
    return str(getattr(scheduler, "monitor", "val/rmse"))
