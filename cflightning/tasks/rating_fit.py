"""The fit of ratings: squared error with an adaptive penalty and SVD++ terms, by autograd or by an engine."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from cflightning.checkpoint.format import ADAPTIVE_PENALTY_KEY, SVDPP_KEY
from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.loaders.ratings import RatingBatch
from cflightning.engines.base import DEFAULT_EPOCHS, EngineInputs
from cflightning.engines.select import RatingEngine, select_engine
from cflightning.engines.svdpp_prior import SvdppPrior
from cflightning.models.network import ScoringNetwork
from cflightning.models.penalty import BIAS_L2, Penalty, count_weights
from cflightning.models.svdpp import SvdppTerm
from cflightning.objectives.mse import Mse
from cflightning.tasks.base import NetworkTask
from cflightning.tasks.fit import Fit
from cflightning.tasks.rating_head import configured_penalty
from cflightning.tasks.regularisation.adaptive_penalty import MAX_RATINGS, UPDATES_PER_EPOCH, AdaptivePenalty
from cflightning.tasks.regularisation.bias_blending import blend_best_checkpoint
from cflightning.tasks.regularisation.initial_penalties import estimate_penalties
from cflightning.utils.distributed import run_together

log = logging.getLogger(__name__)
PRIOR_STEPS_PER_EPOCH = 8
"""Updates of the SVD++ terms per epoch by autograd; engines update them in every stage."""


class RatingFit(Fit):
    """Trains networks to predict ratings.

    Args:
        task: Task whose networks predict ratings.
        data: Data of the fit.

    Attributes:
        base_penalty: The configured penalty, with a default l2 times the noise scale; `AdaptivePenalty` multiplies it
            further.
        adaptive_penalty: The adaptive penalty while training lasts; None if l2 is given.
    """

    engine: RatingEngine | None

    def __init__(self, task: NetworkTask, data: RatingsDataModule) -> None:
        engine = select_engine(
            task.engine, task.trainer, task.ensemble.networks,
            custom_optimizer=bool(task.optimizer or task.weight_decay),
            counts_batches=data.given_batch_size is not None or "OneCycleLR" in str(task.lr_scheduler),
        )  # fmt: skip
        super().__init__(task, engine)
        self.objective = Mse()
        self.base_penalty: Penalty = configured_penalty(task)
        self.adaptive_penalty: AdaptivePenalty | None = None
        self._bias_l2: tuple[float, float] = (BIAS_L2, BIAS_L2)
        self._weights: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None

    def on_train_start(self, data: RatingsDataModule) -> None:
        """Estimate the penalties, attach SVD++ priors, and start the engine, if there is one."""
        task = self.task
        self._attach_priors(data)
        estimate = estimate_penalties(data, task.network.scale)
        l2, exponent = configured_penalty(task)
        l2 = l2 * estimate.noise_scale if task.l2 is None else l2
        self.base_penalty = Penalty(l2, exponent)
        task.metadata = replace(task.metadata, l2=l2)
        self._bias_l2 = estimate.bias_l2 if l2 else (0.0, 0.0)
        if self.engine is not None:
            loader: Any = task.trainer.train_dataloader
            optimizer: Any = task.optimizers(use_pl_optimizer=False)
            self.engine.start(self._engine_inputs(), loader, optimizer)
        else:
            user, item = (
                self._count_weights(torch.from_numpy(counts), bias_l2, l2, exponent)
                for counts, bias_l2 in zip(data.counts(), self._bias_l2, strict=True)
            )
            self._weights = user, item
        self._start_adaptive_penalty(data)

    def write_served_network(self) -> None:
        """Write the average of the members into the served network."""
        self.task.ensemble.average_members()

    @property
    def _svdpp_term_class(self) -> type[SvdppTerm] | None:
        """Class of the SVD++ terms that are trained by autograd or beside the engine; None for Gibbs sampling."""
        return SvdppTerm if self.engine is None else self.engine.svdpp_term_class

    def _engine_inputs(self) -> EngineInputs:
        task = self.task
        return EngineInputs(
            task.ensemble.priors, task.build_members, dim=task.training_dim,
            penalty=self.base_penalty, bias_l2=self._bias_l2, svdpp=task.svdpp, seed=task.seed,
            threads=torch.get_num_threads(), num_epochs=task.trainer.max_epochs,
        )  # fmt: skip

    def _count_weights(self, counts: Tensor, bias_l2: float, l2: float, exponent: float) -> tuple[Tensor, Tensor]:
        """Return the weights of the penalties on vectors, and those on biases relative to them: float32 [n] twice."""
        weights = count_weights(counts, exponent)
        shares = bias_l2 / (counts.clamp(min=1) * weights * (l2 or 1.0))
        return weights.float().to(self.task.device), shares.float().to(self.task.device)

    def _attach_priors(self, data: RatingsDataModule) -> None:
        task, term_class = self.task, self._svdpp_term_class
        if task.svdpp == "none" or term_class is None:
            return
        user, item = (torch.from_numpy(column).to(task.device) for column in data.training_pairs())
        task.ensemble.attach_priors(user, item, task.svdpp, self.base_penalty.exponent, term_class)
        task.ensemble.load_priors(task.resume_state.pop(SVDPP_KEY, []))

    def _start_adaptive_penalty(self, data: RatingsDataModule) -> None:
        """Adapt the penalty if l2 has its default, there are validation ratings, and the engine has a penalty."""
        task, device = self.task, self.task.device
        self.adaptive_penalty = None
        state = task.resume_state.pop(ADAPTIVE_PENALTY_KEY, {})
        user, item, rating = (torch.from_numpy(column).to(device) for column in data.validation_ratings(MAX_RATINGS))
        if task.l2 is None and task.ensemble.dot_products and len(user) and self._svdpp_term_class is not None:
            self.adaptive_penalty = AdaptivePenalty(user.long(), item.long(), rating)
            self.adaptive_penalty.load(state)
            self._apply_adaptive_penalty(self.adaptive_penalty)

    def _apply_adaptive_penalty(self, adaptive: AdaptivePenalty) -> None:
        for prior in self.task.ensemble.priors:
            prior.scale_penalty(adaptive.svdpp_scale)
        if self.engine is not None:
            self.engine.penalty_scale = adaptive.factor_scale

    def on_train_batch_start(self, batch_idx: int) -> None:
        """Update the SVD++ terms, unless an engine does so, and the adaptive penalty."""
        task, trainer = self.task, self.task.trainer
        batches = int(trainer.num_training_batches)
        if self.engine is None and batch_idx % max(batches // PRIOR_STEPS_PER_EPOCH, 1) == 0:
            task.ensemble.step_priors()
        adaptive = self.adaptive_penalty
        if adaptive is not None and batch_idx % max(batches // UPDATES_PER_EPOCH, 1) == 0:
            steps = float(trainer.estimated_stepping_batches)
            steps = steps if math.isfinite(steps) else float(DEFAULT_EPOCHS * batches)
            priors = task.ensemble.priors
            before = adaptive.state
            means = priors[0].means if priors else None
            adaptive.update(task.ensemble.dot_products[0], means, trainer.global_step / steps)
            if adaptive.state != before:
                self._apply_adaptive_penalty(adaptive)

    def train_batch(self, batch: RatingBatch) -> Tensor | None:
        """Train on a batch; logged is the squared error without the penalty."""
        if self.engine is not None:
            self.step_engine(self.engine, batch)
            return None
        ensemble = self.task.ensemble
        losses = [self._loss(*member, batch) for member in zip_longest(ensemble.networks, ensemble.priors)]
        totals, errors = zip(*losses, strict=True)
        self.add_loss(sum(errors[1:], start=errors[0]), batch.total * len(losses))
        return torch.stack(totals).sum()

    def _loss(self, network: ScoringNetwork, prior: SvdppPrior | None, batch: RatingBatch) -> tuple[Tensor, Tensor]:
        """Return the summed loss of a network, in squared rating ranges, and its squared error, in squared units."""
        assert self._weights is not None
        (user_weights, user_shares), (item_weights, item_shares) = self._weights
        scale = 1.0 if self.adaptive_penalty is None else self.adaptive_penalty.factor_scale
        shares = user_shares[batch.user] / scale, item_shares[batch.item] / scale
        scores, users, items = network.scores_and_norms(batch.user, batch.item, prior.means if prior else None, shares)
        error = self.objective.loss(scores, batch.rating)
        assert self.task.metadata.rating_range is not None
        low, high = self.task.metadata.rating_range
        loss = error / (high - low) ** 2  # so that l2 and learning rate mean the same on every scale
        if l2 := self.base_penalty.l2:
            weights = user_weights[batch.user].to(users), item_weights[batch.item].to(items)
            loss = loss + l2 * scale * (weights[0] @ users + weights[1] @ items)
        return loss, error.detach()

    def on_train_end(self) -> None:
        """Shut down the engine, release the priors, and log the adapted penalty."""
        super().on_train_end()
        self.task.ensemble.priors = []
        adaptive, self.adaptive_penalty = self.adaptive_penalty, None
        if adaptive is not None and (adaptive.factor_scale, adaptive.svdpp_scale) != (1.0, 1.0):
            log.info("adapted to the validation ratings: l2 %.2g, and %.2g times the default penalty on SVD++ terms",
                     self.base_penalty.l2 * adaptive.factor_scale, adaptive.svdpp_scale)  # fmt: skip

    def on_fit_end(self) -> None:
        """Blend the best checkpoint with the bias-only model where that lowers the validation error."""
        task = self.task
        assert task.vocabulary is not None
        run_together(partial(blend_best_checkpoint, task.trainer, task.network, task.vocabulary))

    def state(self) -> dict[str, Any]:
        """Return SVD++ terms and the multiples of the adaptive penalty."""
        state: dict[str, Any] = {}
        if self.task.ensemble.priors:
            state[SVDPP_KEY] = self.task.ensemble.prior_state()
        if self.adaptive_penalty is not None:
            state[ADAPTIVE_PENALTY_KEY] = self.adaptive_penalty.state
        return state
