"""The interface of heads, the parts of a task that train and measure a network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.loaders.ratings import RatingBatch
from cflightning.engines.base import EngineSpec


@dataclass(frozen=True)
class BatchLoss:
    """Loss of a batch on one device.

    Attributes:
        total: float32 [], sum over the batch, to be minimised.
        logged: float32 [], sum of the logged loss over the batch; `train/loss` is its mean over the epoch.
        count: Number of terms of that mean, over all devices.
    """

    total: Tensor
    logged: Tensor
    count: int


class Head(ABC):
    """The part of a task for either ratings or rankings: it trains and measures a network.

    The first head of a task trains on the Trainer's batches. Methods named after Lightning's hooks are called by them.
    """

    transient: ClassVar[tuple[str, ...]] = ()
    """Attributes of a running training, which are neither copied nor pickled."""
    resume_keys: ClassVar[tuple[str, ...]] = ()
    """Keys of a checkpoint under which training state is stored."""

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | dict.fromkeys(self.transient)

    def select_engine(self, data: RatingsDataModule) -> EngineSpec | None:
        """Return the engine that trains the first head, or None for autograd."""
        raise NotImplementedError

    def batch_loss(self, batch: Any) -> BatchLoss:
        """Return the loss of a batch by autograd."""
        raise NotImplementedError

    def sync_served_network(self) -> None:
        """Write the current result of training into the served network."""
        return

    @abstractmethod
    def on_train_start(self, data: RatingsDataModule) -> None:
        """Start training."""

    def on_train_epoch_start(self, data: RatingsDataModule) -> None:
        """Start an epoch."""
        return

    def on_train_batch_start(self, batch_idx: int) -> None:
        """Adapt training between batches."""
        return

    def on_train_end(self) -> None:
        """End training."""
        return

    def on_fit_end(self) -> None:
        """Finish the checkpoints of a fit."""
        return

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add training state to a checkpoint."""
        return

    def settings_used(self) -> dict[str, Any]:
        """Return the settings that training used, every default resolved, as plain data."""
        return {}

    def resolved_options(self) -> dict[str, Any]:
        """Return the values of options of the command line that training derived: option without `--` -> value."""
        return {}

    def on_evaluation_start(self) -> None:
        """Start a pass over a validation or test part."""
        return

    def evaluate_batch(self, batch: RatingBatch) -> Tensor | None:
        """Add a batch to the metrics, and return its scores if it was scored: float32 [batch]."""
        return None

    @abstractmethod
    def log_metrics(self, stage: str) -> None:
        """Log the metrics of the part: `val/...` or `test/...`."""
