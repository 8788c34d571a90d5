"""Choice of the engine: `--model.engine`, if the Trainer and the network support it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from cflightning.engines import fused, fused_gpu, gibbs
from cflightning.engines.base import EngineSpec
from cflightning.errors import ConfigError
from cflightning.kernels.availability import unavailable_reason
from cflightning.models.embedding_dot import EmbeddingDot

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from cflightning.models.network import RatingNetwork

log = logging.getLogger(__name__)

EngineName = Literal["auto", "autograd", "fused", "gibbs"]


@dataclass(frozen=True)
class EngineRequest:
    """The settings of a task that decide which engine trains its networks.

    Attributes:
        name: Engine of the setting `engine`.
        custom_optimizer: Whether the setting `optimizer` or `weight_decay` replaces the engine's optimiser.
        step_schedule: Whether the setting `lr_scheduler` counts batches.
        batch_size: Setting `batch_size`; None for the default.
    """

    name: EngineName = "auto"
    custom_optimizer: bool = False
    step_schedule: bool = False
    batch_size: int | None = None


def select_engine(request: EngineRequest, trainer: Trainer, networks: Sequence[RatingNetwork]) -> EngineSpec | None:
    """Select the engine that trains some networks.

    Args:
        request: Settings of the task.
        trainer: Trainer of the fit.
        networks: Networks to train, all of one class.

    Returns:
        The engine's parts, or None for autograd.

    Raises:
        ConfigError: Gibbs sampling was requested and is not supported here; another engine would be no substitute.
    """
    if request.name == "autograd":
        return None
    reason = unsupported_reason(request, trainer, networks[0])
    if request.name == "gibbs":
        if reason is None and trainer.strategy.root_device.type != "cpu":
            reason = "it runs on the CPU: give --trainer.accelerator cpu"
        [network] = networks
        if reason is not None or not isinstance(network, EmbeddingDot):
            raise ConfigError(f"--model.engine gibbs: cannot be used, {reason}")
        return gibbs.make_spec(network)
    if reason is not None:
        level = logging.WARNING if request.name == "fused" else logging.INFO
        log.log(level, "the fused engine cannot be used, %s: training by autograd", reason)
        return None
    dot_products = [network for network in networks if isinstance(network, EmbeddingDot)]
    on_gpu = trainer.strategy.root_device.type == "cuda"
    return fused_gpu.make_spec(dot_products) if on_gpu else fused.make_spec(dot_products)


def unsupported_reason(request: EngineRequest, trainer: Trainer, network: RatingNetwork) -> str | None:
    """Return why the compiled engines cannot train a network, or None.

    Args:
        request: Settings of the task; with engine `auto`, settings that count batches are reasons too.
        trainer: Trainer of the fit.
        network: Network to train.
    """
    counts_batches = (
        request.batch_size or request.step_schedule or trainer.max_steps != -1 or trainer.limit_train_batches != 1.0
    )
    fast_dev_run: Any = trainer.fast_dev_run  # type: ignore[attr-defined]
    device = trainer.strategy.root_device
    reasons = {
        f"it supports EmbeddingDot, not {type(network).__name__}": not isinstance(network, EmbeddingDot),
        f"it does not support {type(trainer.strategy).__name__}": not isinstance(
            trainer.strategy, (SingleDeviceStrategy, DDPStrategy)
        ),
        "--trainer.precision must be 32-true": trainer.precision != "32-true",
        "--optimizer and --model.weight_decay need autograd": request.custom_optimizer,
        "--model.sigmoid must be true": not network.scale.sigmoid,
        "--trainer.accumulate_grad_batches and gradient_clip_val need autograd": trainer.accumulate_grad_batches != 1
        or trainer.gradient_clip_val is not None,
        "--data.batch_size, --trainer.max_steps, limits of batches and schedules by steps need autograd "
        "(fused has eight batches an epoch)": request.name == "auto" and counts_batches and not fast_dev_run,
    }
    device_reason = unavailable_reason() if device.type == "cpu" else _unsupported_gpu_reason(request, trainer, device)
    return device_reason or next((reason for reason, holds in reasons.items() if holds), None)


def _unsupported_gpu_reason(request: EngineRequest, trainer: Trainer, device: torch.device) -> str | None:
    reasons = {
        "it runs on the CPU and on CUDA GPUs": device.type != "cuda" or torch.version.hip is not None,
        "on a GPU it must be requested by --model.engine fused": request.name == "auto",  # its speed is unmeasured
        "on GPUs it runs in one process": trainer.world_size > 1,
        "on a GPU the order of its sums is not deterministic": torch.are_deterministic_algorithms_enabled(),
        "it needs triton (pip install 'cflightning[gpu]')": find_spec("triton") is None,
    }
    reason = next((reason for reason, holds in reasons.items() if holds), None)
    if reason is None and torch.cuda.get_device_capability(device) < (8, 0):
        return "it needs a GPU of compute capability 8.0 or later"
    return reason
