"""Tasks that predict ratings."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, get_args

import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.loaders.ratings import RatingBatch
from cflightning.engines.base import DEFAULT_EPOCHS, Engine, EngineContext
from cflightning.engines.select import EngineName, EngineRequest
from cflightning.errors import CheckpointError
from cflightning.metrics.rating import RatingErrors
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.models.network import RatingNetwork
from cflightning.models.penalty import BIAS_L2, Penalty, count_weights
from cflightning.models.svdpp import SvdppTerm
from cflightning.objectives.squared_error import squared_error
from cflightning.tasks import adaptive_penalty as steering
from cflightning.tasks.adaptive_penalty import AdaptivePenalty
from cflightning.tasks.base import NetworkTask
from cflightning.tasks.bias_penalty import find_bias_penalty
from cflightning.tasks.optimizers import check_states, configure, step_schedules
from cflightning.utils.arguments import Arguments

if TYPE_CHECKING:
    from cflightning.engines.svdpp_prior import SvdppPrior

log = logging.getLogger(__name__)
ADAPTIVE_PENALTY_KEY = "cflightning_adaptive_penalty"
"""Key of a checkpoint under which multiples of the penalties are kept, for training to go on."""


class RatingTask(NetworkTask):
    """Minimises the squared error of predicted ratings; subclasses say which network.

    The network is built when the task meets its data (sizes and rating range come from the vocabulary of the training
    part) or its checkpoint (they come from there, whatever the data at hand holds), so the arguments are choices only.

    Args:
        learning_rate: Peak of the one-cycle schedule; None for the engine's own (autograd 0.01; fused 0.075, with bags
            0.1, at 10 epochs and more with fewer).
        l2: Penalty on the squared rows that each rating looks up (with bags, on their squared way from the bags'
            means), in units of the squared rating range. The one to tune first. None for 0.008, with bags 0.02, as
            steered by the validation part, if there is one: stronger where factors or bags learn noise, weaker where
            they are held down. Biases are shrunken as much as the training part itself says; 0 shrinks nothing.
        l2_exponent: A row rated n times is weighted by (n / 50) ** -l2_exponent each time: 0 is the classic penalty per
            rating, 1 the same penalty for every row. None for 0.5, with bags 0.6 to 0.85, more where there are more
            items than users.
        weight_decay: Decoupled weight decay of AdamW on every row of every table, every step, rated or not; another
            thing than l2, and bad for the biases of rare rows. The global bias is free.
        margin: Widening of the sigmoid's range, as a share of the rating range, on each side.
        sigmoid: Whether to squeeze predictions into the rating range by a sigmoid; else they are only clipped.
        seed: Of the initial parameters.
        optimizer: Another optimiser, as `{"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}`; the command
            line's --optimizer. It keeps its own rate unless there is an lr_scheduler.
        lr_scheduler: Another learning-rate schedule, likewise; the command line's --lr_scheduler.
        engine: autograd (any device, any network, batches of any size); fused, a compiled step for EmbeddingDot on
            CPUs, as accurate and many times as fast (falls back to autograd, saying why, where it cannot be used);
            auto, fused where it can and nothing was asked that counts batches (--data.batch_size,
            --trainer.max_steps, --trainer.limit_train_batches). Each is the same on any number of processes. gibbs, the
            most accurate and slowest: the mean of EmbeddingDot's posterior by Gibbs sampling, an epoch a sweep, and of
            solutions that the fused engine finds first. Hardly any setting matters there; an epoch costs as much as
            some ten of fused.
    """

    user_weights: Tensor
    item_weights: Tensor
    user_shares: Tensor
    item_shares: Tensor

    def __init__(
        self,
        learning_rate: float | None = None,
        l2: float | None = None,
        l2_exponent: float | None = None,
        weight_decay: float = 0.0,
        margin: float = 0.125,
        sigmoid: bool = True,
        seed: int = 0,
        optimizer: dict[str, Any] | None = None,
        lr_scheduler: dict[str, Any] | None = None,
        engine: EngineName = "auto",
    ) -> None:
        check = Arguments("model", locals())
        for name in ("learning_rate", "l2"):
            check.number(name, 0, optional=True)
        check.number("l2_exponent", optional=True)
        check.number("weight_decay", 0)
        check.number("margin", 0)
        check.flag("sigmoid")
        check.whole("seed")
        check.choice("engine", get_args(EngineName))
        for name in ("optimizer", "lr_scheduler"):
            if (described := check.given[name]) is not None and not (
                isinstance(described, Mapping) and isinstance(described.get("class_path"), str)
            ):
                raise check.refuse(name, "be a description, {'class_path': ..., 'init_args': {...}}")
        super().__init__(seed, engine)
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.l2 = l2
        self.l2_exponent = l2_exponent
        self.margin = margin
        self.sigmoid = sigmoid
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self._kept_penalty: dict[str, float] = {}
        self._adaptive_penalty: AdaptivePenalty | None = None
        self.bias_l2: tuple[float, float] = (BIAS_L2, BIAS_L2)
        self.l2_multiple = 1.0
        self.val_errors, self.test_errors = RatingErrors(), RatingErrors()  # one each: sums must not mix
        self._loss_sum: Tensor | None = None
        self._loss_rows = 0

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """Scores of pairs: int64 [batch] rows twice -> float32 [batch], rating units."""
        self._require_network()
        scores: Tensor = self.network(user, item)
        return scores

    def __getstate__(self) -> dict[str, Any]:
        """See `NetworkTask`."""
        return {**super().__getstate__(), "_adaptive_penalty": None}

    @property
    def penalty(self) -> Penalty:
        """As given, else what four data sets of very different size and density agree on; see `tasks.shrinkage`."""
        l2, exponent = (0.008, 0.5) if self.svdpp == "none" else (0.02, self._default_exponent)
        return Penalty(
            l2 * self.l2_multiple if self.l2 is None else self.l2,
            exponent if self.l2_exponent is None else self.l2_exponent,
        )

    @property
    def _default_exponent(self) -> float:
        """With bags: more where items outnumber users, so that most rows are items of few ratings.

        From four data sets with .6 to 16 items a user, on slices of their training parts: .75 instead of .6 is worth
        .0027 RMSE on MovieLens latest small (16), .85 another .0011, and .75 costs .0028 on MovieLens 1M (.6).
        """
        if self.vocabulary is None:
            return 0.6
        items, users = len(self.vocabulary.items), len(self.vocabulary.users)
        return min(max(0.6 + 0.06 * math.log2(max(items, 1) / max(users, 1)), 0.6), 0.85)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add where steering has got to, to what `NetworkTask` keeps."""
        super().on_save_checkpoint(checkpoint)
        if self._adaptive_penalty is not None:
            checkpoint[ADAPTIVE_PENALTY_KEY] = self._adaptive_penalty.state

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with steering from there."""
        super().on_load_checkpoint(checkpoint)
        self._kept_penalty = checkpoint.get(ADAPTIVE_PENALTY_KEY, {})

    def settings_used(self) -> dict[str, Any]:
        """Return what training used, with every default resolved, as plain data; l2 as validation rows adapted it."""
        l2, exponent = self.penalty
        multiple = self._kept_penalty.get("rows", 1.0) if self.l2 is None else 1.0
        used = {"task": type(self).__name__, "engine": self._engine_name, "learning_rate": self.learning_rate,
                "l2": l2 * multiple, "l2_exponent": exponent, "svdpp": self.svdpp, "members": self.members,
                "seed": self.seed}  # fmt: skip
        dim = getattr(self.network, "dim", None)
        return used if dim is None else used | {"dim": int(dim)}

    def engine_request(self, batch_size: int | None) -> EngineRequest:
        """Return the settings that decide which engine trains the networks."""
        custom, counts = bool(self.optimizer or self.weight_decay), "OneCycleLR" in str(self.lr_scheduler)
        return EngineRequest(self.engine, custom, counts, batch_size)

    def engine_context(self) -> EngineContext:
        """Return the settings of this training run that an engine reads."""
        networks = [network for network in self.ensemble.networks if isinstance(network, EmbeddingDot)]
        return EngineContext(
            networks, self.ensemble.priors, self.init_members, dim=networks[0].dim, penalty=self.penalty,
            bias_l2=self.bias_l2, svdpp=self.svdpp, seed=self.seed, threads=torch.get_num_threads(),
            num_epochs=self.trainer.max_epochs,
        )  # fmt: skip

    @property
    def _svdpp_term(self) -> Callable[[], type[SvdppTerm]] | None:
        """The implementation of SVD++ terms for the engine; None if the engine has its own."""
        return (lambda: SvdppTerm) if self._engine_spec is None else self._engine_spec.svdpp_term

    # Steps -------------------------------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        """Start the fused engine, or count the ratings of each row for the penalty."""
        check_states(self.trainer.optimizers)
        # Not saved: the counts belong to the training part at hand, and only training needs them.
        data = self._data()
        if data is None:
            raise CheckpointError(
                f"{type(self).__name__}: must be trained with a RatingsDataModule; give it to Trainer.fit"
            )
        self._attach_priors(data)
        shrinkage = find_bias_penalty(data, self.network.scale)
        self.l2_multiple = shrinkage.l2
        l2, exponent = self.penalty
        self.bias_l2 = shrinkage.bias_l2 if l2 else (0.0, 0.0)
        if self._engine_spec is not None:
            optimizer, loader = self.optimizers(use_pl_optimizer=False), self.trainer.train_dataloader
            self._engine = self._engine_spec.make_engine(self.engine_context(), loader, optimizer)
        else:
            for side, found, bias_l2 in zip(("user", "item"), data.counts(), self.bias_l2, strict=True):
                counts = torch.from_numpy(found)
                weights = count_weights(counts, exponent)
                shares = bias_l2 / (counts.clamp(min=1) * weights * (l2 or 1.0))  # of the penalty per rating
                for name, values in (("weights", weights), ("shares", shares)):
                    self.register_buffer(f"{side}_{name}", values.float().to(self.device), persistent=False)
        self._start_adaptive_penalty(data)

    def _start_adaptive_penalty(self, data: RatingsDataModule) -> None:
        """Where l2 is the default, there are held-out rows, and an engine to be steered."""
        held = data.held_out(steering.ROWS)
        self._adaptive_penalty = None
        if self.l2 is None and self.ensemble.has_factors and len(held[0]) and self._svdpp_term is not None:
            user, item, rating = (torch.from_numpy(column).to(self.device) for column in held)
            self._adaptive_penalty = AdaptivePenalty(user.long(), item.long(), rating)
            self._adaptive_penalty.load(self._kept_penalty)
            self._take_course()
        self._kept_penalty = {}

    def _take_course(self) -> None:
        assert self._adaptive_penalty is not None
        for prior in self.ensemble.priors:
            prior.scale_penalty(self._adaptive_penalty.bags)
        if self._engine is not None:
            self._engine.penalty_scale = self._adaptive_penalty.rows

    def _attach_priors(self, data: RatingsDataModule) -> None:
        kind = self._svdpp_term
        if self.svdpp == "none" or kind is None:
            return
        user, item = (torch.from_numpy(rows).to(self.device) for rows in data.training_pairs())
        self.ensemble.attach_priors(user, item, self.svdpp, self.penalty.exponent, kind())
        self.ensemble.load(self._kept_priors)
        self._kept_priors = []

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Let the bags learn from the steps so far, eight times an epoch (engines do so themselves), and steer."""
        # Not when a batch ends: checkpoints are written then, before or after.
        done, batches = self.trainer.global_step, int(self.trainer.num_training_batches)
        if not done:
            return
        if self.ensemble.priors and self._engine is None and batch_idx % max(batches // 8, 1) == 0:
            self.ensemble.step_priors()
        if self._adaptive_penalty is not None and batch_idx % max(batches // steering.LOOKS, 1) == 0:
            whole = float(self.trainer.estimated_stepping_batches)
            whole = whole if math.isfinite(whole) else float(DEFAULT_EPOCHS * batches)
            before = self._adaptive_penalty.state
            self._adaptive_penalty.look(*self.ensemble.first, done / whole)
            if self._adaptive_penalty.state != before:
                self._take_course()

    def on_validation_start(self) -> None:
        """What is measured is the network that answers."""
        if self.trainer.state.fn == TrainerFn.FITTING:
            self._sync_served_network()

    def on_train_end(self) -> None:
        """Let the engine's threads go."""
        self._sync_served_network()
        self.ensemble.priors = []
        if self._adaptive_penalty is not None and self._adaptive_penalty.state != {"rows": 1.0, "bags": 1.0}:
            log.info("the validation rows have steered l2 to %.2g, and the penalty on bags to %.2g of the usual",
                     self.penalty.l2 * self._adaptive_penalty.rows, self._adaptive_penalty.bags)  # fmt: skip
        self._adaptive_penalty = None
        if self._engine is not None:
            self._engine.close()
        self._engine = None

    def training_step(self, batch: RatingBatch | Any, batch_idx: int) -> Tensor | None:
        """Mean loss of a `RatingBatch` over all devices (float32 []); None where an engine has done its step."""
        if self._engine is not None:
            self._engine_step(self._engine, batch)
            return None
        networks, priors = self.ensemble.networks, self.ensemble.priors
        losses = [self._loss(*learner, batch) for learner in zip_longest(networks, priors)]
        self._loss_rows += batch.total * len(losses)
        # DDP averages gradients over devices; shares of a batch may differ in size, so divide by the whole batch.
        loss: Tensor = torch.stack(losses).sum() * (self.trainer.world_size / int(batch.total))
        return loss

    def _loss(self, network: RatingNetwork, prior: SvdppPrior | None, batch: RatingBatch) -> Tensor:
        """Sum of what the ratings of a batch cost a network, in units of the squared rating range: float32 []."""
        strength = 1.0 if self._adaptive_penalty is None else self._adaptive_penalty.rows
        shares = self.user_shares[batch.user] / strength, self.item_shares[batch.item] / strength
        scores, users, items = network.scores_and_norms(batch.user, batch.item, prior.means if prior else None, shares)
        loss: Tensor = squared_error(scores, batch.rating)
        # Summed without leaving the device; what is logged is the squared error in rating units, without the penalty.
        seen = loss.detach()
        self._loss_sum = seen if self._loss_sum is None else self._loss_sum + seen
        low, high = self.facts["rating_range"]
        loss = loss / (high - low) ** 2  # so that l2 and learning rate mean the same on every scale
        if self.penalty.l2:
            weights = self.user_weights[batch.user].to(users), self.item_weights[batch.item].to(items)
            loss = loss + self.penalty.l2 * strength * (weights[0] @ users + weights[1] @ items)
        return loss

    def _engine_step(self, engine: Engine, step: Any) -> None:
        optimizer: Any = self.optimizers()
        rate = optimizer.param_groups[0]["lr"]
        loss = optimizer.step(closure=lambda: engine.train_batch(step, rate))
        self._loss_sum = (0 if self._loss_sum is None else self._loss_sum) + torch.as_tensor(loss, dtype=torch.float64)
        self._loss_rows += step.total
        step_schedules(self.trainer, "step")

    def on_train_epoch_end(self) -> None:
        """Log the mean squared error that the epoch saw while it learnt."""
        if not self.automatic_optimization:
            step_schedules(self.trainer, "epoch")
        if self._loss_sum is not None:
            self.log("train/loss", self._loss_sum / self._loss_rows, sync_dist=True, reduce_fx="sum", prog_bar=True)
        self._loss_sum, self._loss_rows = None, 0

    def validation_step(self, batch: RatingBatch, batch_idx: int) -> None:
        """Add a batch to the validation errors."""
        self.val_errors.update(self(batch.user, batch.item), batch.rating)

    def on_validation_epoch_end(self) -> None:
        """Log `val/rmse` and `val/mae`."""
        self._log_errors("val", self.val_errors)

    def test_step(self, batch: RatingBatch, batch_idx: int) -> Tensor:
        """Add a batch to the test errors; returns its scores (float32 [batch]), for callbacks."""
        scores: Tensor = self(batch.user, batch.item)
        self.test_errors.update(scores, batch.rating)
        return scores

    def on_test_epoch_end(self) -> None:
        """Log `test/rmse` and `test/mae`."""
        self._log_errors("test", self.test_errors)

    def predict_step(self, batch: RatingBatch, batch_idx: int) -> tuple[Tensor, Tensor]:
        """Positions in the table (int64 [batch]) and scores (float32 [batch], rating units)."""
        return batch.position, self(batch.user, batch.item)

    def _log_errors(self, part: str, errors: RatingErrors) -> None:
        # Summed over devices already: sync_dist averages equal numbers, and Lightning asks for it.
        figures = {f"{part}/{name}": value for name, value in errors.compute().items()}
        self.log_dict(figures, prog_bar=True, sync_dist=True)
        errors.reset()

    # Optimiser ---------------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The engine's, or fused AdamW, with one cycle over the whole training, unless others were asked for."""
        self._require_network()
        found = [one for network in self.ensemble.networks for one in network.parameters()]
        data = self._data()
        ratio = 1.0 if data is None else data.batch_ratio
        return configure(
            self, self._engine_spec, [one for one in found if one.requires_grad or self._engine_spec], ratio
        )
