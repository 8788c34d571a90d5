"""Tasks that predict ratings."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from cflightning import checkpoint as checkpoints
from cflightning.data.batches import BatchLoader, RatingBatch
from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.vocabulary import Vocabulary
from cflightning.errors import CheckpointError
from cflightning.metrics.rating import RatingErrors
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.models.embedding_mlp import EmbeddingMLP
from cflightning.models.network import RatingNetwork
from cflightning.objectives.squared_error import squared_error

log = logging.getLogger(__name__)


class RatingTask(LightningModule, ABC):
    """Minimises the squared error of predicted ratings; subclasses say which network.

    The network is built when the task meets its data (sizes and rating range come from the vocabulary of the training
    part) or its checkpoint (they come from there, whatever the data at hand holds), so the arguments are choices only.

    Args:
        learning_rate: Peak of the one-cycle schedule.
        weight_decay: Decoupled weight decay of AdamW on every row of every table, every step. The global bias is free.
        l2: Penalty on the squared parameters that each rating looks up (so rows count as often as they are rated, as
            in Funk's SVD); another thing than weight decay.
        margin: Widening of the sigmoid's range, as a share of the rating range, on each side.
        sigmoid: Whether to squeeze predictions into the rating range by a sigmoid; else they are only clipped.
        seed: Of the initial parameters.
    """

    known: ClassVar[dict[str, type[RatingTask]]] = {}
    """Every imported task by its name in checkpoints; nothing else is ever made from a checkpoint."""

    network: RatingNetwork

    def __init__(
        self,
        learning_rate: float = 5e-3,
        weight_decay: float = 0.1,
        l2: float = 0.0,
        margin: float = 0.1,
        sigmoid: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.l2 = l2
        self.margin = margin
        self.sigmoid = sigmoid
        self.seed = seed
        self.vocabulary: Vocabulary | None = None
        self.facts: dict[str, Any] = {}
        self.val_errors, self.test_errors = RatingErrors(), RatingErrors()  # one each: sums must not mix
        self._loss_sum: Tensor | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        RatingTask.known[f"{cls.__module__}.{cls.__qualname__}"] = cls

    @abstractmethod
    def build_network(
        self, num_users: int, num_items: int, rating_range: tuple[float, float], mean_rating: float
    ) -> RatingNetwork:
        """Make the network.

        Args:
            num_users: Rows of a user table, the unknown row included.
            num_items: Rows of an item table, the unknown row included.
            rating_range: Lowest and highest rating.
            mean_rating: Mean rating of the training part.
        """

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """Scores of pairs: int64 [batch] rows twice -> float32 [batch], rating units."""
        self._require_network()
        scores: Tensor = self.network(user, item)
        return scores

    # Meeting the data, or a checkpoint ---------------------------------------------------------------------------

    def configure_model(self) -> None:
        """Build the network for the data at hand, unless a checkpoint has brought one or will."""
        data = self._data()
        if self.vocabulary is not None:
            if data is not None:
                data.vocabulary = self.vocabulary
        elif data is not None and self.trainer.state.fn == TrainerFn.FITTING:
            facts = {"rating_range": [float(v) for v in data.rating_range], "mean_rating": data.mean_rating}
            self._build(data.vocabulary, facts)

    def _build(self, vocabulary: Vocabulary, facts: Mapping[str, Any]) -> None:
        low, high = facts["rating_range"]
        with torch.random.fork_rng(devices=[]):  # the same start on every device, and nobody's random state changed
            torch.manual_seed(self.seed)
            self.network = self.build_network(
                vocabulary.users.num_rows, vocabulary.items.num_rows, (low, high), float(facts["mean_rating"])
            )
        self.vocabulary = vocabulary
        self.facts = dict(facts)

    def _require_network(self) -> None:
        if self.vocabulary is None:
            raise CheckpointError(
                f"{type(self).__name__}: has no network yet; fit it with a RatingsDataModule (Trainer.fit(task, data)), "
                "or load a checkpoint (ckpt_path=...)"
            )

    def _data(self) -> RatingsDataModule | None:
        data = getattr(self._trainer, "datamodule", None) if self._trainer is not None else None
        return data if isinstance(data, RatingsDataModule) else None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add vocabulary, sizes and metrics under the key `cflightning`."""
        if self.vocabulary is None:
            return
        metrics = self._trainer.callback_metrics if self._trainer is not None else {}
        self.facts["task"] = f"{type(self).__module__}.{type(self).__qualname__}"
        self.facts["metrics"] = {name: float(value) for name, value in metrics.items()}
        checkpoint[checkpoints.KEY] = checkpoints.pack(self.vocabulary, **self.facts)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take vocabulary and sizes from the checkpoint; the data at hand is read through that vocabulary."""
        vocabulary, facts = checkpoints.unpack(checkpoint)
        self._build(vocabulary, facts)
        if (data := self._data()) is not None:
            data.vocabulary = vocabulary

    # Steps -------------------------------------------------------------------------------------------------------

    def training_step(self, batch: RatingBatch, batch_idx: int) -> Tensor:
        """Mean loss of the batch over all devices (float32 [])."""
        loss = squared_error(self(batch.user, batch.item), batch.rating)
        # Summed without leaving the device; what is logged is the squared error, without the penalty.
        seen = loss.detach()
        self._loss_sum = seen if self._loss_sum is None else self._loss_sum + seen
        if self.l2:
            loss = loss + self.l2 * self.network.penalty(batch.user, batch.item).sum()
        # DDP averages gradients over devices; shares of a batch may differ in size, so divide by the whole batch.
        return loss * (self.trainer.world_size / batch.total)

    def on_train_epoch_end(self) -> None:
        """Log the mean squared error that the epoch saw while it learnt."""
        loader = self.trainer.train_dataloader
        if self._loss_sum is not None and isinstance(loader, BatchLoader):
            self.log("train/loss", self._loss_sum / loader.num_rows, sync_dist=True, reduce_fx="sum", prog_bar=True)
        self._loss_sum = None

    def validation_step(self, batch: RatingBatch, batch_idx: int) -> None:
        """Add a batch to the validation errors."""
        self.val_errors.update(self(batch.user, batch.item), batch.rating)

    def on_validation_epoch_end(self) -> None:
        """Log `val/rmse` and `val/mae`."""
        self._log_errors("val", self.val_errors)

    def test_step(self, batch: RatingBatch, batch_idx: int) -> None:
        """Add a batch to the test errors."""
        self.test_errors.update(self(batch.user, batch.item), batch.rating)

    def on_test_epoch_end(self) -> None:
        """Log `test/rmse` and `test/mae`."""
        self._log_errors("test", self.test_errors)

    def predict_step(self, batch: RatingBatch, batch_idx: int) -> tuple[Tensor, Tensor]:
        """Positions in the table (int64 [batch]) and scores (float32 [batch], rating units)."""
        return batch.position, self(batch.user, batch.item)

    def _log_errors(self, part: str, errors: RatingErrors) -> None:
        # Already summed over devices, so nothing is left to synchronise.
        self.log_dict({f"{part}/{name}": value for name, value in errors.compute().items()}, prog_bar=True)
        errors.reset()

    # Optimiser ---------------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Fused AdamW with one cycle over the whole training; `--optimizer` and `--lr_scheduler` replace them."""
        from cflightning.tasks.schedule import one_cycle_schedule

        self._require_network()
        tables = [p for p in self.network.parameters() if p.ndim > 0]
        free = [p for p in self.network.parameters() if p.ndim == 0]
        groups = [{"params": tables, "weight_decay": self.weight_decay}, {"params": free, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=self.learning_rate,
            betas=(0.9, 0.99),
            eps=1e-5,
            fused=self.device.type in {"cpu", "cuda"},
        )
        if self.trainer.max_epochs == -1 and self.trainer.max_steps == -1:
            log.info("the number of epochs is open, so the learning rate stays at %g", self.learning_rate)
            return {"optimizer": optimizer}  # type: ignore[typeddict-item]
        schedule = one_cycle_schedule(optimizer, lambda: self.trainer.estimated_stepping_batches)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class EmbeddingDotTask(RatingTask):
    """Dot product of user and item factors plus biases, squeezed into the rating range.

    Args:
        dim: Latent factors.
        std: Standard deviation of the initial factors.
        kwargs: As for `RatingTask`.
    """

    def __init__(self, dim: int = 64, std: float = 0.05, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dim = dim
        self.std = std
        self.save_hyperparameters()

    def build_network(
        self, num_users: int, num_items: int, rating_range: tuple[float, float], mean_rating: float
    ) -> EmbeddingDot:
        """An `EmbeddingDot`."""
        return EmbeddingDot(
            num_users, num_items, self.dim, rating_range, mean_rating, self.sigmoid, self.margin, std=self.std
        )


class EmbeddingMLPTask(RatingTask):
    """Concatenated user and item embeddings through a small multi-layer perceptron (fastai's `EmbeddingNN`).

    Args:
        dim: Width of each embedding.
        hidden: Widths of the hidden layers.
        std: Standard deviation of the initial embeddings.
        kwargs: As for `RatingTask`.
    """

    def __init__(self, dim: int = 64, hidden: tuple[int, ...] = (100, 50), std: float = 0.05, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dim = dim
        self.hidden = hidden
        self.std = std
        self.save_hyperparameters()

    def build_network(
        self, num_users: int, num_items: int, rating_range: tuple[float, float], mean_rating: float
    ) -> EmbeddingMLP:
        """An `EmbeddingMLP`."""
        return EmbeddingMLP(
            num_users,
            num_items,
            self.dim,
            self.hidden,
            rating_range,
            mean_rating,
            self.sigmoid,
            self.margin,
            std=self.std,
        )
