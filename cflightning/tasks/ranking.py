"""Tasks that say what somebody would choose, beside or instead of how somebody would rate it."""

from __future__ import annotations

import copy
import logging
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from tqdm import tqdm

from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.loaders.ratings import RatingBatch
from cflightning.data.splits.split import TEST, TRAIN, VAL
from cflightning.data.vocabulary import Vocabulary
from cflightning.engines.base import Engine, EngineContext, EngineSpec
from cflightning.engines.full_batch import FullBatch, FullBatchLoader, StateOptimizer
from cflightning.errors import ArgumentError, CheckpointError, ConfigError, DataError
from cflightning.evaluation.rankings import evaluate_tables, select_eval_users
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.models.network import FoldedTables
from cflightning.objectives.fold_in import vectors_of_new_users
from cflightning.objectives.rankers import Pairs, Ranker, compiled
from cflightning.objectives.sampled_losses import COSINE, SHARED, USUAL, Sampled, sampled
from cflightning.solvers.interactions import Side
from cflightning.tasks.optimizers import check_states
from cflightning.tasks.rating import RatingTask
from cflightning.utils.arguments import Arguments

log = logging.getLogger(__name__)

Objective = Literal["mse", "bce", "bpr", "softmax", "ccl", "ials", "svd", "multitask"]
RATING: tuple[Objective, ...] = "mse", "multitask"
"""Those that predict ratings."""
RANKER_KEY = "cflightning_ranker"
"""Key of a checkpoint under which a ranker's state is kept, for training to go on."""
BESIDE, BESIDE_DIM = "ials", 48
"""What ranks beside ratings, if nothing else is said; on slices of four data sets near the best, and cheap."""
VAL_USERS = 4096
"""Users at most, evenly spaced, by whom the best epoch is chosen."""


def default_objective(choices: bool, by_autograd: bool) -> Objective:
    """What is minimised if nothing else is said: for choices or for ratings, by autograd or on the CPU."""
    if choices:
        return "bce" if by_autograd else "ials"
    return "multitask"


def check_ranking(check: Arguments) -> None:
    """Refuse settings of `ranking` that have no such name with the objective, or no number.

    Args:
        check: Of the task's arguments.
    """
    settings, objective = check.given["ranking"], check.given["objective"]
    if settings is None:
        return
    if not isinstance(settings, Mapping):
        raise check.refuse("ranking", "be settings by name")
    beside = Arguments("model", {f"ranking.{name}": settings.get(name) for name in ("objective", "dim", "passes")})
    beside.choice("ranking.objective", Ranker.known, optional=True)
    for name in ("dim", "passes"):
        beside.whole(f"ranking.{name}", 1, optional=True)
    alone = {name: {**USUAL[name], **SHARED} for name in USUAL}
    for name, ranker in Ranker.known.items():
        alone[name] = ranker.defaults | alone.get(name, {})
    known = alone.get(objective)
    if known is None:
        known = dict.fromkeys(("objective", "dim", "passes", *(one for names in alone.values() for one in names)))
    if unknown := [str(name) for name in settings if name not in known]:
        with_it = f" with {objective}" if objective in alone else ""
        raise ArgumentError("model", "ranking", f"has {', '.join(known)}{with_it}, got {', '.join(unknown)[:60]}")
    for name, value in settings.items():
        if name != "objective" and value is not None and not isinstance(value, bool | int | float):
            raise check.refuse("ranking", f"have a number for {name}", value)


class RankerEngine(Engine):
    """Trains the served network by a ranker; an epoch is a pass of the ranker.

    Args:
        ranker: Ranker of the training part.
        num_epochs: Epochs of the run; None or -1 if their number is open.
        world_size: Number of processes.
    """

    def __init__(self, ranker: Ranker, num_epochs: int | None, world_size: int) -> None:
        self.ranker, self.world_size = ranker, world_size
        self.num_epochs = num_epochs if num_epochs and num_epochs > 0 else ranker.passes

    def train_batch(self, batch: FullBatch, learning_rate: float) -> float:
        """Run a pass; returns this process's share of its loss, as if summed over pairs."""
        self.ranker.run(batch.epoch, self.num_epochs)
        return self.ranker.loss() * batch.total / self.world_size

    def close(self) -> None:
        """Shut down the ranker's thread pool."""
        self.ranker.close()


class RankingTask(RatingTask):
    """Adds to a task of ratings an objective that ranks; see `objective` and `ranking` of `EmbeddingDotTask`."""

    ranking: dict[str, Any] | None = None
    _given_objective: Objective | None = None
    beside: EmbeddingDot
    """What ranks where another network rates."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._ranker: Ranker | None = None
        self._kept_ranker: dict[str, Tensor] = {}
        self._measured: dict[str, Tensor] = {}
        self._sampled: Sampled | None = None

    @property
    @abstractmethod
    def factors(self) -> int:
        """Of a user in training."""

    @property
    def objective(self) -> Objective:
        """The objective in effect: as given, else as derived from the data or the checkpoint, multitask before."""
        derived: Objective = self.facts.get("objective", "multitask")
        return derived if self._given_objective is None else self._given_objective

    @objective.setter
    def objective(self, value: Objective | None) -> None:
        self._given_objective = value

    @property
    def predicts_ratings(self) -> bool:
        """Whether ratings are predicted."""
        return self.objective in RATING

    @property
    def predicts_rankings(self) -> bool:
        """Whether choices are."""
        return self.objective != "mse"

    @property
    def recommender(self) -> Any:
        """The network whose order recommends: of its own where there is one, else that of ratings."""
        return self.beside if self.objective == "multitask" else self.network

    @property
    def by_autograd(self) -> bool:
        """Whether batches of choices train what ranks, instead of passes over all of them."""
        if self.predicts_ratings or self.objective not in USUAL:
            return False
        elsewhere = self._trainer is not None and self.trainer.strategy.root_device.type != "cpu"
        return self.objective not in Ranker.known or self.engine == "autograd" or elsewhere or not compiled()

    @property
    def answers_apart(self) -> bool:
        """Whether what answers is made of what is trained: of its directions, or smoothed."""
        return self.by_autograd and (self.objective in COSINE or bool((self.ranking or {}).get("smooth")))

    @property
    def ranker_name(self) -> str:
        """The objective of what ranks."""
        return str((self.ranking or {}).get("objective", BESIDE)) if self.objective == "multitask" else self.objective

    @property
    def ranker_kind(self) -> type[Ranker]:
        """What makes it."""
        name = self.ranker_name
        if name not in Ranker.known:
            raise ConfigError(f"--model.ranking.objective: must be one of {', '.join(Ranker.known)}, got {name}")
        return Ranker.known[name]

    # Networks ----------------------------------------------------------------------------------------------------

    def _facts(self, data: RatingsDataModule) -> dict[str, Any]:
        choices = data.table.rating is None
        elsewhere = self.engine == "autograd" or self.trainer.strategy.root_device.type != "cpu"
        objective = default_objective(choices, elsewhere) if self._given_objective is None else self._given_objective
        if objective not in RATING:
            rows = data.split.sizes[TRAIN]
            return {"rating_range": None, "mean_rating": None, "train_rows": rows, "objective": objective}
        if choices:
            raise DataError(
                f"{data.table.name}: must have ratings to train on with --model.objective {objective}, "
                "got choices; give bce, softmax, ials or svd"
            )
        return {**super()._facts(data), "objective": objective}

    def _build(self, vocabulary: Vocabulary, facts: Mapping[str, Any]) -> None:
        super()._build(vocabulary, facts)
        if self.objective == "multitask":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                dim = int((self.ranking or {}).get("dim", BESIDE_DIM))
                self.beside = EmbeddingDot(vocabulary.users.num_rows, vocabulary.items.num_rows, dim, std=0.1)
            self.beside.requires_grad_(False)  # or several devices would wait for gradients that never come
        elif hasattr(self, "beside"):  # of the data, before a checkpoint without one came
            del self.beside
        self.facts["objective"] = self.objective

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what the ranker has to remember."""
        super().on_save_checkpoint(checkpoint)
        if self._ranker is not None and not self.predicts_ratings:
            checkpoint[RANKER_KEY] = self._ranker.state

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it back."""
        super().on_load_checkpoint(checkpoint)
        self._kept_ranker = checkpoint.get(RANKER_KEY, {})
        if self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
            before = "beside.user_factors.weight" in checkpoint["state_dict"]
            if before != (self.objective == "multitask"):
                raise CheckpointError(
                    f"--model.objective: must be {'multitask' if before else 'that of the run'} to go on with it, "
                    f"got {self.objective}"
                )

    def __getstate__(self) -> dict[str, Any]:
        """See `NetworkTask`; a ranker ends with its training, too."""
        return {**super().__getstate__(), "_ranker": None, "_sampled": None}

    def settings_used(self) -> dict[str, Any]:
        """Return what training used: of ratings, of lists (`ranking`), or of both."""
        used = super().settings_used() | {"objective": self.objective}
        if not self.predicts_ratings:
            used = {name: used[name] for name in ("task", "engine", "dim", "members", "seed", "objective")}
        if self.predicts_rankings:
            beside = (
                {"objective": self.ranker_name, "dim": int(self.beside.dim)} if self.objective == "multitask" else {}
            )
            used["ranking"] = beside | dict(self.facts.get("ranking") or {})
        return used

    # Training ----------------------------------------------------------------------------------------------------

    def _choose_engine(self, data: RatingsDataModule) -> None:
        if self.predicts_ratings:
            super()._choose_engine(data)
            return
        if self.by_autograd:
            self._choose_autograd(data)
            return
        meant = ("auto", "fused") if self.objective in USUAL else ("auto",)
        for option, value, fine in (("engine", self.engine, meant), ("optimizer", self.optimizer, (None,)),
                                    ("lr_scheduler", self.lr_scheduler, (None,))):  # fmt: skip
            if value not in fine:
                raise ConfigError(
                    f"--model.{option}: has no meaning with --model.objective {self.objective}, got {value}"
                )
        network = self.network
        assert isinstance(network, EmbeddingDot)
        network.requires_grad_(False)
        network.global_bias.requires_grad_(True)  # DDP refuses a module without any; nothing ever goes backward
        if self.trainer.strategy.root_device.type != "cpu":
            raise ConfigError(
                f"--model.objective {self.objective}: runs on the CPU; give --trainer.accelerator cpu, "
                "or choose bce, bpr, softmax or ccl"
            )

        def make_engine(context: EngineContext, loader: FullBatchLoader, optimizer: StateOptimizer) -> RankerEngine:
            self._ranker = self._make_ranker(data, network)
            self._ranker.load(self._kept_ranker)
            self._kept_ranker = {}
            return RankerEngine(self._ranker, context.num_epochs, loader.world_size)

        spec = EngineSpec(
            self.objective, FullBatchLoader, partial(StateOptimizer, network), lambda *_: 0.0, make_engine,
            svdpp_term=None, scheduled=False,
        )  # fmt: skip
        self._set_engine_spec(spec, data)

    def _choose_autograd(self, data: RatingsDataModule) -> None:
        if self.engine not in ("auto", "autograd"):
            raise ConfigError(f"--model.engine: must be autograd for --model.objective {self.objective} here, "
                              f"got {self.engine}")  # fmt: skip
        if self.members > 1 or data.training_weights() is not None:
            given = "--model.members" if self.members > 1 else "--data.weight"
            raise ConfigError(f"{given}: is not known to --model.objective {self.objective} by autograd; leave it out")
        user, item = (torch.from_numpy(rows) for rows in data.training_pairs())
        settings = ({} if self.l2 is None else {"l2": self.l2}) | (self.ranking or {})
        self._sampled = sampled(self.objective, settings, user, item, data.num_users, data.num_items)
        self.facts["ranking"] = self._sampled.settings
        for network in self.ensemble.networks:
            assert isinstance(network, EmbeddingDot)
            for name in self._sampled.unused:  # or several devices would wait for its gradient
                network.get_parameter(name).requires_grad_(False)
        self._set_engine_spec(None, data)
        data.train_loader = self._sampled.loader(torch.from_numpy(data.counts()[1]))

    def _make_ranker(self, data: RatingsDataModule, network: EmbeddingDot) -> Ranker:
        user, item = (torch.from_numpy(rows) for rows in data.training_pairs())
        found = data.training_weights()
        beside = self.objective == "multitask"
        own = ("objective", "dim", "passes") if beside else ()
        settings = {name: value for name, value in (self.ranking or {}).items() if name not in own}
        if not beside:
            given = {"l2": self.l2, "learning_rate": self.learning_rate}
            known = self.ranker_kind.defaults
            settings = {name: value for name, value in given.items() if value is not None and name in known} | settings
        ranker = self.ranker_kind(
            Pairs(user, item, None if found is None else torch.from_numpy(found)), network, settings,
            dim=network.dim if beside else self.factors, members=1 if beside else self.members, seed=self.seed,
            threads=torch.get_num_threads(),
        )  # fmt: skip
        self.facts["ranking"] = ranker.settings
        return ranker

    def on_train_start(self) -> None:
        """Start the engine."""
        self._measured = {}
        if self.predicts_ratings:
            super().on_train_start()
        elif self._sampled is not None:
            check_states(self.trainer.optimizers)
            if self._sampled.smoothing is not None:
                self._sampled.smoothing.to(self.device)
        else:
            assert self._engine_spec is not None
            loader, optimizer = self.trainer.train_dataloader, self.optimizers(use_pl_optimizer=False)
            self._engine = self._engine_spec.make_engine(self.engine_context(), loader, optimizer)

    def engine_context(self) -> EngineContext:
        """Return the settings of this training run that an engine reads."""
        return replace(super().engine_context(), dim=self.factors)

    def on_train_epoch_start(self) -> None:
        """Before ratings are learnt, make what ranks beside them, so that it is complete in any epoch that is kept."""
        data = self._data()
        if self.objective != "multitask" or self.facts.get("ranked") or data is None:
            return
        as_it_is = self.device.type == "cpu" and self.beside.item_factors.weight.dtype == torch.float32
        network = self.beside if as_it_is else copy.deepcopy(self.beside).cpu().float()
        ranker = self._make_ranker(data, network)
        shown = self.trainer.progress_bar_callback is not None and self.trainer.is_global_zero
        passes = int((self.ranking or {}).get("passes") or ranker.passes)
        with torch.no_grad():
            for number in tqdm(range(passes), "Ranking", leave=False, disable=not shown):
                ranker.run(number, passes)
        ranker.close()
        if network is not self.beside:
            self.beside.take(FoldedTables(*(table.to(self.device) for table in network.fold())))
        self.facts["ranked"] = True

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        """Mean loss of a `RatingBatch` or `ChoiceBatch` over all devices; None where an engine has done its step."""
        if self._sampled is None:
            return super().training_step(batch, batch_idx)
        [network] = self.ensemble.networks
        assert isinstance(network, EmbeddingDot)
        loss = self._sampled.loss(network, batch)
        seen = loss.detach()
        self._loss_sum = seen if self._loss_sum is None else self._loss_sum + seen
        self._loss_rows += batch.total
        return loss * (self.trainer.world_size / int(batch.total))  # DDP averages gradients over devices

    def _sync_served_network(self) -> None:
        if self._sampled is None or not self.answers_apart:
            super()._sync_served_network()
            return
        [learner] = self.ensemble.networks
        assert isinstance(learner, EmbeddingDot)
        assert isinstance(self.network, EmbeddingDot)
        with torch.no_grad():
            users, items = self._sampled.tables(learner)
            self.network.take(learner.fold()._replace(user_vectors=users, item_vectors=items))

    # Figures -----------------------------------------------------------------------------------------------------

    def validation_step(self, batch: RatingBatch, batch_idx: int) -> None:
        """Add a batch to the validation errors, if ratings are predicted."""
        if self.predicts_ratings:
            super().validation_step(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        """Log the errors, and the figures of lists (`val/ndcg@10`, …) of at most `VAL_USERS` users."""
        if self.predicts_ratings:
            super().on_validation_epoch_end()
        data = self._data()
        if not self.predicts_rankings or data is None or self.trainer.sanity_checking:
            return
        fitting = self.trainer.state.fn == TrainerFn.FITTING
        if not (
            self._measured and self.predicts_ratings and fitting
        ):  # what ranks beside ratings is made once in a fit
            self._measured = self._figures(data, VAL, VAL_USERS)
        self._log_ranking("val", self._measured)

    def test_step(self, batch: RatingBatch, batch_idx: int) -> Tensor | None:  # type: ignore[override]
        """Add a batch to the test errors, if ratings are predicted, and return its scores (float32 [batch])."""
        return super().test_step(batch, batch_idx) if self.predicts_ratings else None

    def on_test_epoch_end(self) -> None:
        """Log the errors, and the figures of the lists of all users."""
        if self.predicts_ratings:
            super().on_test_epoch_end()
        data = self._data()
        if self.predicts_rankings and data is not None:
            self._log_ranking("test", self._figures(data, TEST))

    def _figures(self, data: RatingsDataModule, part: int, most: int | None = None) -> dict[str, Tensor]:
        questions = select_eval_users(data, part, self.trainer, most, optional=self.predicts_ratings)
        if questions is None:
            return {}
        tables = self.recommender.fold()
        if questions.held_out:
            found = vectors_of_new_users(
                self.ranker_name, self.facts.get("ranking", {}), tables, Side(*questions.seen[:2]),
                torch.from_numpy(data.counts()[1]), torch.get_num_threads(),
            )  # fmt: skip
            tables = tables._replace(user_vectors=found.to(self.device))
        return evaluate_tables(questions, tables)

    def _log_ranking(self, part: str, figures: Mapping[str, Tensor]) -> None:
        # Summed over devices already, as the errors are.
        for name, value in figures.items():
            self.log(f"{part}/{name}", value, prog_bar=name == "ndcg@10", sync_dist=True)
