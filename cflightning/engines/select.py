"""Which engine trains: what `--model.engine` asks for, where it can be used."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from cflightning.engines import fused, fused_gpu
from cflightning.engines.base import Plan
from cflightning.errors import ConfigError
from cflightning.models.embedding_dot import EmbeddingDot

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from cflightning.models.network import RatingNetwork

log = logging.getLogger(__name__)

EngineName = Literal["auto", "autograd", "fused", "gibbs"]


def choose_engine(
    task: Any, trainer: Trainer, networks: Sequence[RatingNetwork], batch_size: int | None
) -> Plan | None:
    """The plan of the engine that is to train, or None for autograd.

    Args:
        task: that asks, by its `engine`.
        trainer: that is to fit.
        networks: that are to be trained.
        batch_size: as given by the user.

    Raises:
        ConfigError: sampling was asked for where it cannot be done; another engine would be no substitute.
    """
    if task.engine == "autograd":
        return None
    obstacle = fused.why_not(trainer, networks[0], task, batch_size)
    if task.engine == "gibbs":
        return _sampling(task, trainer, networks, obstacle)
    if obstacle:
        level = logging.WARNING if task.engine == "fused" else logging.INFO
        log.log(level, "the fused engine cannot be used, %s: training by autograd", obstacle)
        return None
    known = [network for network in networks if isinstance(network, EmbeddingDot)]
    on_gpu = trainer.strategy.root_device.type == "cuda"
    return fused_gpu.plan(task, known) if on_gpu else fused.plan(task, known)


def _sampling(task: Any, trainer: Trainer, networks: Sequence[RatingNetwork], obstacle: str | None) -> Plan:
    from cflightning.engines import gibbs

    [network] = networks
    if trainer.strategy.root_device.type != "cpu":
        obstacle = "it runs on the CPU: give --trainer.accelerator cpu"
    if obstacle or not isinstance(network, EmbeddingDot):
        raise ConfigError(f"--model.engine gibbs: cannot be used, {obstacle}")
    return gibbs.plan(task, network)
