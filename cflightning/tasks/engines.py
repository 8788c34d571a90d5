"""Which engine trains: what `--model.engine` asks for, where it can be used."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.tasks import fused, fused_gpu
from cflightning.tasks.engine import Plan

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from cflightning.models.network import RatingNetwork

log = logging.getLogger(__name__)


def choose_engine(task: Any, trainer: Trainer, network: RatingNetwork, batch_size: int | None) -> Plan | None:
    """The plan of the engine that is to train, or None for autograd.

    Args:
        task: that asks, by its `engine`.
        trainer: that is to fit.
        network: that is to be trained.
        batch_size: as given by the user.
    """
    if task.engine == "autograd":
        return None
    obstacle = fused.why_not(trainer, network, task, batch_size)
    if obstacle:
        level = logging.WARNING if task.engine == "fused" else logging.INFO
        log.log(level, "the fused engine cannot be used, %s: training by autograd", obstacle)
        return None
    assert isinstance(network, EmbeddingDot)
    on_gpu = trainer.strategy.root_device.type == "cuda"
    return fused_gpu.plan(task, network) if on_gpu else fused.plan(task, network)
