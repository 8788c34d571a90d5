"""A task that is trained and measured by heads, by autograd or by an engine."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.loaders.ratings import RatingBatch, RatingLoader
from cflightning.engines.base import Engine, EngineSpec
from cflightning.errors import CheckpointError
from cflightning.tasks.checkpointed import CheckpointedTask
from cflightning.tasks.head import Head
from cflightning.tasks.optimizers import check_states, step_schedules


class TrainedTask(CheckpointedTask):
    """A task whose hooks are those of its heads; the first head trains on the Trainer's batches.

    Order in a fit: `configure_model` (`build`, `prepare_training`), `configure_optimizers`, `on_train_start` (the
    engine starts); per epoch `on_train_epoch_start`, per batch `on_train_batch_start` and `training_step`, the hooks of
    validation, `on_train_epoch_end`; at the end `on_train_end` (the engine is shut down) and `on_fit_end` (the best
    checkpoint is blended with the biases). Checkpoints are written by `on_save_checkpoint`.

    Args:
        seed: Seed of the initial parameters.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.heads: Sequence[Head] = ()
        self.engine_spec: EngineSpec | None = None
        self.running_engine: Engine | None = None
        self._synced_step = -1  # step of the last `sync_served_network`
        self._loss_sum: Tensor | None = None
        self._loss_count = 0

    def __getstate__(self) -> dict[str, Any]:
        """Return what is copied and pickled: everything but a running training."""
        return {**super().__getstate__(), "engine_spec": None, "running_engine": None}

    @abstractmethod
    def make_heads(self) -> Sequence[Head]:
        """Make the heads for the network and the metadata; the first one trains on the Trainer's batches."""

    def prepare_training(self, data: RatingsDataModule) -> None:
        """Make the heads for this fit and select the engine."""
        self.heads = self.make_heads()
        data.train_loader = RatingLoader
        self.engine_spec = self.heads[0].select_engine(data)
        self.automatic_optimization = self.engine_spec is None
        if self.engine_spec is not None:
            data.train_loader = self.engine_spec.make_loader

    @property
    def engine_name(self) -> str:
        """Name of the engine that trains."""
        return "autograd" if self.engine_spec is None else self.engine_spec.name

    def settings_used(self) -> dict[str, Any]:
        """Return the settings that training used, every default resolved, as plain data."""
        used: dict[str, Any] = {"task": type(self).__name__, "engine": self.engine_name}
        for head in self.heads:
            used |= head.settings_used()
        return used

    # Training --------------------------------------------------------------------------------------------------------

    def start_engine(self, make: Callable[[Any, Any], Engine]) -> None:
        """Start an engine with the Trainer's dataloader and optimiser."""
        self.running_engine = make(self.trainer.train_dataloader, self.optimizers(use_pl_optimizer=False))

    def on_train_start(self) -> None:
        """Check restored optimiser states, and start the heads and with them the engine."""
        check_states(self.trainer.optimizers)
        data = self._require_data()
        for head in self.heads:
            head.on_train_start(data)

    def on_train_epoch_start(self) -> None:
        """Call the heads, which may train before the first batch of an epoch."""
        for head in self.heads:
            head.on_train_epoch_start(self._require_data())

    def _require_data(self) -> RatingsDataModule:
        if (data := self.datamodule) is None:
            raise CheckpointError(
                f"{type(self).__name__}: must be trained with a RatingsDataModule; give it to Trainer.fit"
            )
        return data

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Call the heads, which may change penalties before a batch."""
        # Not when a batch ends: checkpoints are written then, before or after.
        if self.trainer.global_step:
            for head in self.heads:
                head.on_train_batch_start(batch_idx)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        """Return the mean loss of a batch over all devices (float32 []), or None if an engine did its step."""
        if self.running_engine is not None:
            self._engine_step(self.running_engine, batch)
            return None
        loss = self.heads[0].batch_loss(batch)
        logged = loss.logged.detach()  # summed without a copy to the host
        self._loss_sum = logged if self._loss_sum is None else self._loss_sum + logged
        self._loss_count += loss.count
        # DDP averages gradients over devices; shares of a batch may differ in size, so divide by the whole batch.
        return loss.total * (self.trainer.world_size / int(batch.total))

    def _engine_step(self, engine: Engine, batch: Any) -> None:
        optimizer: Any = self.optimizers()
        rate = optimizer.param_groups[0]["lr"]
        loss = optimizer.step(closure=lambda: engine.train_batch(batch, rate))
        self._loss_sum = (0 if self._loss_sum is None else self._loss_sum) + torch.as_tensor(loss, dtype=torch.float64)
        self._loss_count += batch.total
        step_schedules(self.trainer, "step")

    def on_train_epoch_end(self) -> None:
        """Log the mean loss of the epoch."""
        if not self.automatic_optimization:
            step_schedules(self.trainer, "epoch")
        if self._loss_sum is not None:
            self.log("train/loss", self._loss_sum / self._loss_count, sync_dist=True, reduce_fx="sum", prog_bar=True)
        self._loss_sum, self._loss_count = None, 0

    def on_train_end(self) -> None:
        """Finish the served network and shut down the engine."""
        self.sync_served_network()
        for head in self.heads:
            head.on_train_end()
        if self.running_engine is not None:
            self.running_engine.close()
        self.running_engine = None

    def on_fit_end(self) -> None:
        """Call the heads, which may change the best checkpoint."""
        for head in self.heads:
            head.on_fit_end()

    def sync_served_network(self) -> None:
        """Write the current result of training into the served network, once per step."""
        trainer = self.attached_trainer
        step = -1 if trainer is None else trainer.global_step
        if step != self._synced_step and self.heads:
            self.heads[0].sync_served_network()
            self._synced_step = step

    # Checkpoints -----------------------------------------------------------------------------------------------------

    def resume_keys(self) -> tuple[str, ...]:
        """Return the keys of the heads' training states."""
        return tuple(key for head in self.heads for key in head.resume_keys)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add vocabulary, metadata and training state."""
        super().on_save_checkpoint(checkpoint)
        for head in self.heads:
            head.on_save_checkpoint(checkpoint)
        self.sync_served_network()  # the tables that are already in the checkpoint

    # Evaluation ------------------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Measure the served network."""
        if self.is_fitting:
            self.sync_served_network()
        self._start_evaluation()

    def validation_step(self, batch: RatingBatch, batch_idx: int) -> None:
        """Add a batch to the validation metrics."""
        for head in self.heads:
            head.evaluate_batch(batch)

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics."""
        for head in self.heads:
            head.log_metrics("val")

    def on_test_epoch_start(self) -> None:
        """Start the test metrics."""
        self._start_evaluation()

    def _start_evaluation(self) -> None:
        self.require_network()
        for head in self.heads:
            head.on_evaluation_start()

    def test_step(self, batch: RatingBatch, batch_idx: int) -> Tensor | None:
        """Add a batch to the test metrics; returns the scores (float32 [batch]) for callbacks."""
        scores = [head.evaluate_batch(batch) for head in self.heads]
        return scores[0]

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        for head in self.heads:
            head.log_metrics("test")

    def predict_step(self, batch: RatingBatch, batch_idx: int) -> tuple[Tensor, Tensor]:
        """Return positions in the table (int64 [batch]) and scores (float32 [batch], rating units)."""
        return batch.position, self(batch.user, batch.item)
