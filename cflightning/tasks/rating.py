"""Training and evaluation of a task by Lightning's hooks; by default of ratings."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from cflightning.checkpoint.format import CheckpointMetadata
from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.leakage import Use, check_rows
from cflightning.data.loaders.ratings import RatingBatch
from cflightning.data.splits.split import TRAIN
from cflightning.data.vocabulary import Vocabulary
from cflightning.errors import CheckpointError
from cflightning.evaluation.rankings import RankingResult
from cflightning.objectives.settings import SearchRange
from cflightning.tasks.base import NetworkTask
from cflightning.tasks.fit import Fit
from cflightning.tasks.head import Head
from cflightning.tasks.optimizers import check_states, make_optimizer_and_schedule, step_schedules
from cflightning.tasks.process_watch import ProcessWatch
from cflightning.tasks.rating_fit import RatingFit
from cflightning.tasks.rating_head import RatingHead
from cflightning.utils.distributed import check_launch, check_strategy, find_launch, run_together

log = logging.getLogger(__name__)
USES: dict[Any, Use] = {TrainerFn.FITTING: "fit", TrainerFn.VALIDATING: "validate", TrainerFn.TESTING: "test"}


class RecommenderTask(NetworkTask):
    """The base of tasks: it predicts ratings unless a subclass has other heads and another fit.

    Order in a fit: `configure_model` (`build`, `make_fit`), `configure_optimizers`, `on_train_start` (the engine
    starts); per epoch `on_train_epoch_start`, per batch `on_train_batch_start` and `training_step`, the hooks of
    validation, `on_train_epoch_end`; at the end `on_train_end` (the engine is shut down) and `on_fit_end` (the best
    checkpoint is blended with the biases). Checkpoints are written by `on_save_checkpoint`.

    Args:
        kwargs: As for `NetworkTask`.

    Attributes:
        heads: Metrics of the task; made with the network.
        current_fit: The fit that runs, or has trained these networks; None in a task that was loaded or copied.
    """

    predicts_ratings, predicts_rankings = True, False
    heads: Sequence[Head] = ()
    current_fit: Fit | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return what is copied and pickled: everything but the fit."""
        return {**super().__getstate__(), "current_fit": None}

    def make_heads(self) -> Sequence[Head]:
        """Make the heads that measure the networks."""
        return (RatingHead(self),)

    def make_fit(self, data: RatingsDataModule) -> Fit:
        """Make what trains the networks in a fit.

        Args:
            data: Data of the fit.
        """
        return RatingFit(self, data)

    def build(self, vocabulary: Vocabulary, metadata: CheckpointMetadata) -> None:
        """Build networks and heads; see `NetworkTask.build`."""
        super().build(vocabulary, metadata)
        self.heads, self.current_fit = self.make_heads(), None

    def data_metadata(self, data: RatingsDataModule) -> CheckpointMetadata:
        """Return the metadata of a data module."""
        low, high = data.rating_range
        return CheckpointMetadata(
            rating_range=(float(low), float(high)), mean_rating=data.mean_rating, train_rows=data.split.sizes[TRAIN]
        )

    @property
    def engine_name(self) -> str:
        """Name of the engine that trains, or has trained."""
        return self.metadata.engine or "autograd"

    def settings_used(self) -> dict[str, Any]:
        """Return the settings that training used, every default resolved, as plain data."""
        used: dict[str, Any] = {"task": type(self).__name__, "engine": self.engine_name}
        if self.metadata.learning_rate is not None:
            used["learning_rate"] = self.metadata.learning_rate
        for head in self.heads:
            used |= head.settings_used()
        return used

    def search_space(self, data: RatingsDataModule) -> dict[str, SearchRange]:
        """Return the ranges in which `tune` searches by default: option without `--` -> range."""
        return {}

    def resolved_options(self) -> dict[str, Any]:
        """Return the values of options of the command line that training derived: option without `--` -> value."""
        return {name: value for head in self.heads for name, value in head.resolved_options().items()}

    # Setup -----------------------------------------------------------------------------------------------------------

    def configure_callbacks(self) -> list[Callback]:
        """Refuse strategies and launchers that would train separate models; watch over several processes."""
        check_strategy(self.trainer)
        launch = find_launch()
        if launch is not None and launch.launcher == "torchrun":  # other launchers may start separate trainings
            check_launch(self.trainer, launch)
        watched = any(isinstance(callback, ProcessWatch) for callback in self.trainer.callbacks)  # type: ignore[attr-defined]
        return [] if watched or self.trainer.world_size == 1 else [ProcessWatch()]

    def prepare_data(self) -> None:
        """Hand the started processes over to the watch."""
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, ProcessWatch):
                callback.adopt(self.trainer)

    def configure_model(self) -> None:
        """Build the network for the data at hand, unless it is built, and prepare a fit."""
        run_together(self._configure_model)

    def _configure_model(self) -> None:
        data = self.datamodule
        if data is None:
            return
        if self.vocabulary is not None:
            data.vocabulary = self.vocabulary
            if self.is_fitting:
                self.metadata = replace(self.metadata, data=None, learning_rate=None)  # the data at hand from here on
            else:
                self._check_data(data)
        elif self.is_fitting:
            data.vocabulary = None  # not one that another task has set
            self.build(data.vocabulary, self.data_metadata(data))
        if self.is_fitting:
            self._start_fit(data)

    def _start_fit(self, data: RatingsDataModule) -> None:
        self.current_fit = fit = self.make_fit(data)
        self.automatic_optimization = fit.engine is None
        data.train_loader = fit.make_loader
        self.metadata = replace(self.metadata, engine=fit.engine_name)

    def _check_data(self, data: RatingsDataModule) -> None:
        """Raise if training rows of a checkpoint would test it, or training would continue with other data."""
        use, metadata = USES.get(self.trainer.state.fn), self.metadata
        if use is not None and metadata.data is not None:
            check_rows(metadata.data, data, use)
        elif use == "fit":  # a checkpoint without provenance
            before, now = metadata.train_rows, data.split.sizes[TRAIN]
            if before is not None and before != now:
                log.warning(
                    "the checkpoint was trained on %d rows, now there are %d: is it the right data?", before, now
                )

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return the engine's optimiser or fused AdamW with a one-cycle schedule, unless others are configured."""
        self.require_network()
        fit, data = self.current_fit, self.datamodule
        engine, ratio = None if fit is None else fit.engine, 1.0 if data is None else data.batch_ratio
        return make_optimizer_and_schedule(self, engine, batch_ratio=ratio)

    # Training --------------------------------------------------------------------------------------------------------

    def require_data(self) -> RatingsDataModule:
        """Return the data of the Trainer; raise a CheckpointError without a `RatingsDataModule`."""
        if (data := self.datamodule) is None:
            raise CheckpointError(
                f"{type(self).__name__}: must be trained with a RatingsDataModule; give it to Trainer.fit"
            )
        return data

    def _require_fit(self) -> Fit:
        assert self.current_fit is not None
        return self.current_fit

    def on_train_start(self) -> None:
        """Check restored optimiser states, and start the fit."""
        check_states(self.trainer.optimizers)
        data = self.require_data()
        self._require_fit().on_train_start(data)
        if self.metadata.learning_rate is None:
            group = self.trainer.optimizers[0].param_groups[0]
            rate = float(group.get("initial_lr", group["lr"]))
            self.metadata = replace(self.metadata, learning_rate=rate or None)  # 0: a solver has settings of its own

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Adapt penalties before a batch."""
        # Not when a batch ends: checkpoints are written then, before or after.
        if self.trainer.global_step:
            self._require_fit().on_train_batch_start(batch_idx)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        """Return the mean loss of a batch over all devices (float32 []), or None if an engine did its step."""
        loss = self._require_fit().train_batch(batch)
        # DDP averages gradients over devices; shares of a batch may differ in size, so divide by the whole batch.
        return None if loss is None else loss * (self.trainer.world_size / int(batch.total))

    def on_train_epoch_end(self) -> None:
        """Log the mean loss of the epoch."""
        if not self.automatic_optimization:
            step_schedules(self.trainer, "epoch")
        if (loss := self._require_fit().pop_mean_loss()) is not None:
            self.log("train/loss", loss, sync_dist=True, reduce_fx="sum", prog_bar=True)

    def on_train_end(self) -> None:
        """Finish the served network and shut down the engine."""
        fit = self._require_fit()
        fit.update_served_network()
        fit.on_train_end()

    def on_fit_end(self) -> None:
        """Finish the checkpoints of the fit."""
        self._require_fit().on_fit_end()

    # Checkpoints -----------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add vocabulary, metadata and training state."""
        super().on_save_checkpoint(checkpoint)
        if self.current_fit is not None:
            checkpoint |= self.current_fit.state()
            self.current_fit.update_served_network()  # the tables that are already in the checkpoint

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Build the networks of the checkpoint, and prepare a fit that continues it."""
        super().on_load_checkpoint(checkpoint)
        if (data := self.datamodule) is None:
            return
        data.vocabulary = self.vocabulary
        self._check_data(data)
        if self.is_fitting:
            before = self.metadata.engine
            self._start_fit(data)  # again, for the network of the checkpoint
            if before and before != self.engine_name:  # each engine has a state of its own
                raise CheckpointError(
                    f"--model.engine: must be {before} to resume a run of {before}, got {self.engine_name}"
                )

    # Evaluation ------------------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Start the validation metrics of the served network."""
        if self.is_fitting and self.current_fit is not None:
            self.current_fit.update_served_network()
        self.on_test_epoch_start()

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
        self.require_network()
        for head in self.heads:
            head.on_evaluation_start()

    def test_step(self, batch: RatingBatch, batch_idx: int) -> Tensor | None:
        """Add a batch to the test metrics; returns the scores (float32 [batch]) for callbacks."""
        scores = [head.evaluate_batch(batch) for head in self.heads]
        return scores[0]

    def evaluate_rankings(self) -> RankingResult | None:
        """Return the evaluation of recommendations in the test that runs, for callbacks; None if there are none."""
        return next((result for head in self.heads if (result := head.evaluate_rankings()) is not None), None)

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        for head in self.heads:
            head.log_metrics("test")

    def predict_step(self, batch: RatingBatch, batch_idx: int) -> tuple[Tensor, Tensor]:
        """Return positions in the table (int64 [batch]) and scores (float32 [batch], rating units)."""
        return batch.position, self(batch.user, batch.item)
