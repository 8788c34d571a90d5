"""Choice of the engine: `--model.engine`, if the Trainer and the network support it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from cflightning.engines.fused import FusedEngine
from cflightning.engines.fused_gpu import FusedGpuEngine
from cflightning.engines.gibbs import GibbsEngine
from cflightning.errors import ConfigError
from cflightning.kernels.availability import unavailable_reason
from cflightning.models.embedding_dot import EmbeddingDot

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from cflightning.models.network import ScoringNetwork

log = logging.getLogger(__name__)

EngineName = Literal["auto", "autograd", "fused", "gibbs"]
RatingEngine = FusedEngine | FusedGpuEngine | GibbsEngine
"""The engines that train networks to predict ratings."""


def select_engine(
    name: EngineName,
    trainer: Trainer,
    networks: Sequence[ScoringNetwork],
    *,
    custom_optimizer: bool = False,
    counts_batches: bool = False,
) -> RatingEngine | None:
    """Select the engine that trains some networks.

    Args:
        name: Value of `--model.engine`.
        trainer: Trainer of the fit.
        networks: Networks to train, all of one class.
        custom_optimizer: Whether the setting `optimizer` or `weight_decay` replaces the engine's optimiser.
        counts_batches: Whether the setting `batch_size` or `lr_scheduler` counts batches.

    Returns:
        The engine, or None for autograd.

    Raises:
        ConfigError: Gibbs sampling was requested and is not supported here; another engine would be no substitute.
    """
    if name == "autograd":
        return None
    reason = unsupported_reason(
        name, trainer, networks[0], custom_optimizer=custom_optimizer, counts_batches=counts_batches
    )
    if name == "gibbs":
        if reason is None and trainer.strategy.root_device.type != "cpu":
            reason = "it runs on the CPU: give --trainer.accelerator cpu"
        [network] = networks
        if reason is not None or not isinstance(network, EmbeddingDot):
            raise ConfigError(f"--model.engine gibbs: cannot be used, {reason}")
        return GibbsEngine(network)
    if reason is not None:
        level = logging.WARNING if name == "fused" else logging.INFO
        log.log(level, "the fused engine cannot be used, %s: training by autograd", reason)
        return None
    dot_products = [network for network in networks if isinstance(network, EmbeddingDot)]
    on_gpu = trainer.strategy.root_device.type == "cuda"
    return FusedGpuEngine(dot_products) if on_gpu else FusedEngine(dot_products)


def unsupported_reason(
    name: EngineName,
    trainer: Trainer,
    network: ScoringNetwork,
    *,
    custom_optimizer: bool = False,
    counts_batches: bool = False,
) -> str | None:
    """Return why the compiled engines cannot train a network, or None.

    Args:
        name: Value of `--model.engine`; with `auto`, settings that count batches are reasons too.
        trainer: Trainer of the fit.
        network: Network to train.
        custom_optimizer: See `select_engine`.
        counts_batches: See `select_engine`.
    """
    counts_batches = counts_batches or trainer.max_steps != -1 or trainer.limit_train_batches != 1.0
    fast_dev_run: Any = trainer.fast_dev_run  # type: ignore[attr-defined]
    device = trainer.strategy.root_device
    reasons = {
        f"it supports EmbeddingDot, not {type(network).__name__}": not isinstance(network, EmbeddingDot),
        f"it does not support {type(trainer.strategy).__name__}": not isinstance(
            trainer.strategy, (SingleDeviceStrategy, DDPStrategy)
        ),
        "--trainer.precision must be 32-true": trainer.precision != "32-true",
        "--optimizer and --model.weight_decay need autograd": custom_optimizer,
        "--model.sigmoid must be true": not network.scale.sigmoid,
        "--trainer.accumulate_grad_batches and gradient_clip_val need autograd": trainer.accumulate_grad_batches != 1
        or trainer.gradient_clip_val is not None,
        "--data.batch_size, --trainer.max_steps, limits of batches and schedules by steps need autograd "
        "(fused has eight batches an epoch)": name == "auto" and counts_batches and not fast_dev_run,
    }
    device_reason = unavailable_reason() if device.type == "cpu" else _unsupported_gpu_reason(name, trainer, device)
    return device_reason or next((reason for reason, holds in reasons.items() if holds), None)


def _unsupported_gpu_reason(name: EngineName, trainer: Trainer, device: torch.device) -> str | None:
    reasons = {
        "it runs on the CPU and on CUDA GPUs": device.type != "cuda" or torch.version.hip is not None,
        "on a GPU it must be requested by --model.engine fused": name == "auto",  # its speed is unmeasured
        "on GPUs it runs in one process": trainer.world_size > 1,
        "on a GPU the order of its sums is not deterministic": torch.are_deterministic_algorithms_enabled(),
        "it needs triton (pip install 'cflightning[gpu]')": find_spec("triton") is None,
    }
    reason = next((reason for reason, holds in reasons.items() if holds), None)
    if reason is None and torch.cuda.get_device_capability(device) < (8, 0):
        return "it needs a GPU of compute capability 8.0 or later"
    return reason
