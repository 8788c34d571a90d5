"""The base of all tasks: a network, heads that train and measure it, and the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

import torch
from lightning.pytorch import Callback
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from cflightning.checkpoint.format import CheckpointMetadata
from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.splits.split import TRAIN
from cflightning.data.vocabulary import Vocabulary
from cflightning.engines.select import EngineName
from cflightning.engines.svdpp_prior import SvdppSides
from cflightning.errors import CheckpointError, ConfigError
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.models.network import RatingNetwork
from cflightning.objectives.fold_in import LeastSquaresFoldIn, default_weight
from cflightning.objectives.settings import SearchRange
from cflightning.tasks.members import SVDPP_KEY, Ensemble
from cflightning.tasks.optimizers import OptimizerOptions, make_optimizer_and_schedule
from cflightning.tasks.process_watch import ProcessWatch
from cflightning.tasks.trained import TrainedTask
from cflightning.utils.arguments import Arguments
from cflightning.utils.distributed import check_launch, check_strategy, find_launch, run_together
from cflightning.utils.seeds import member_seed


class NetworkTask(TrainedTask):
    """A network that is trained and measured by heads; `RatingTask` is the base for networks that predict ratings.

    Args:
        learning_rate: Peak of the one-cycle schedule; None for the engine's default (autograd 0.01; fused 0.075, with
            SVD++ terms 0.1, at 10 epochs, and less with more epochs).
        l2: Penalty on the squared vectors that each rating looks up (with SVD++ terms, on their squared distance from
            the prior mean), in units of the squared rating range. The setting to tune first. None for 0.008, with SVD++
            terms 0.02, adapted to the validation part, if there is one: stronger where factors or SVD++ terms overfit,
            weaker where they underfit. The penalty on biases is estimated from the training part; 0 turns off both.
        l2_exponent: A vector with n ratings has the weight (n / 50) ** -l2_exponent for each of them: 0 is the classic
            penalty per rating, 1 the same penalty for every vector. None for 0.5, with SVD++ terms 0.6 to 0.85, more if
            there are more items than users.
        weight_decay: Decoupled weight decay of AdamW on every vector in every step, rated or not; unlike l2 it harms
            the biases of rare users and items. The global bias is free.
        margin: Widening of the sigmoid's range on each side, as a share of the rating range.
        sigmoid: Whether a sigmoid maps predictions into the rating range; else they are only clipped.
        seed: Seed of the initial parameters.
        optimizer: Another optimiser, as `{"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}`; the command
            line's --optimizer. It keeps its own rate unless there is an lr_scheduler.
        lr_scheduler: Another learning-rate schedule, likewise; the command line's --lr_scheduler.
        engine: autograd (any device, any network, batches of any size); fused, a compiled step for EmbeddingDot on
            CPUs, as accurate and many times as fast (logs the reason and falls back to autograd where it is not
            supported); auto, fused where it is supported and no option counts batches (--data.batch_size,
            --trainer.max_steps, --trainer.limit_train_batches). Both give the same result on any number of processes.
            gibbs, the most accurate and slowest: the posterior mean of EmbeddingDot by Gibbs sampling, one sweep per
            epoch, averaged with solutions of the fused engine. It hardly depends on settings; an epoch costs as much
            as some ten of fused.
    """

    ensemble: Ensemble
    svdpp: SvdppSides = "none"
    members = 1
    predicts_ratings: bool
    predicts_rankings: bool

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
            if (config := check.values[name]) is not None and not (
                isinstance(config, Mapping) and isinstance(config.get("class_path"), str)
            ):
                raise check.refuse(name, "be a description, {'class_path': ..., 'init_args': {...}}")
        super().__init__(seed)
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.l2 = l2
        self.l2_exponent = l2_exponent
        self.margin = margin
        self.sigmoid = sigmoid
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.engine = engine

    def __repr__(self) -> str:
        """Return the settings that were given, and the sizes if the network is built."""
        given = [f"{name}={value!r}" for name, value in self.hparams.items() if value is not None and name[0] != "_"]
        known = self.vocabulary
        sizes = "" if known is None else f" of {len(known.users):,} users and {len(known.items):,} items"
        return f"{type(self).__name__}({', '.join(given)}){sizes}"

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """Score pairs: int64 [batch] user and item indices -> float32 [batch], rating units."""
        self.require_network()
        scores: Tensor = self.network(user, item)
        return scores

    # Network ---------------------------------------------------------------------------------------------------------

    def data_metadata(self, data: RatingsDataModule) -> CheckpointMetadata:
        """Return the metadata of a data module."""
        low, high = data.rating_range
        return CheckpointMetadata(
            rating_range=(float(low), float(high)), mean_rating=data.mean_rating, train_rows=data.split.sizes[TRAIN]
        )

    def search_space(self, data: RatingsDataModule) -> dict[str, SearchRange]:
        """Return the ranges in which `tune` searches by default: option without `--` -> range."""
        return {}

    def resolved_options(self) -> dict[str, Any]:
        """Return the values of options of the command line that training derived: option without `--` -> value."""
        return {name: value for head in self.heads for name, value in head.resolved_options().items()}

    @property
    def training_dim(self) -> int:
        """Latent factors in training; the served network may have more or fewer."""
        return int(getattr(self.network, "dim", 0))

    @property
    def recommender(self) -> RatingNetwork:
        """The network whose scores rank."""
        return self.network

    def bundle_fold_in_settings(self, num_items: int) -> LeastSquaresFoldIn:
        """Return the weights by which a bundle folds in users from their interactions.

        Args:
            num_items: Number of item indices, the unknown item included.
        """
        return LeastSquaresFoldIn(default_weight(num_items))

    @property
    def ranking_options(self) -> dict[str, Any]:
        """The options of `--model.ranking`."""
        return {}

    @property
    def trains_separate_networks(self) -> bool:
        """True if other networks are trained than the one that is served; `build_member` makes them."""
        return False

    def build_member(
        self, num_users: int, num_items: int, rating_range: tuple[float, float] | None, mean_rating: float | None
    ) -> EmbeddingDot:
        """Make a member of the ensemble; see `build_network`."""
        raise ConfigError(f"--model: {type(self).__name__} has no ensemble")

    def init_members(self) -> list[EmbeddingDot]:
        """Make the members, each with its own initial parameters; the first has those of a single network."""
        assert self.vocabulary is not None
        sizes = self.vocabulary.users.num_embeddings, self.vocabulary.items.num_embeddings
        networks = []
        for member in range(self.members):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(member_seed(self.seed, member))
                networks.append(self.build_member(*sizes, self.metadata.rating_range, self.metadata.mean_rating))
        return networks

    def build(self, vocabulary: Vocabulary, metadata: CheckpointMetadata) -> None:
        """Build network, ensemble and heads; see `CheckpointedTask.build`."""
        super().build(vocabulary, metadata)
        self.heads = self.make_heads()
        separate = self.is_fitting and self.trains_separate_networks
        self.ensemble = Ensemble(self.network, self.init_members() if separate else ())

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
        """Build the network for the data at hand, unless it is built or a checkpoint will bring it."""
        run_together(self._configure_model)

    def _configure_model(self) -> None:
        data = self.datamodule
        if data is None:
            return
        if self.vocabulary is not None:
            data.vocabulary = self.vocabulary
            if self.is_fitting:
                self.metadata = replace(self.metadata, data=None)  # the data at hand from here on
            else:
                self.check_data(self.metadata, data)
        elif self.is_fitting:
            data.vocabulary = None  # not one that another task has set
            self.build(data.vocabulary, self.data_metadata(data))
        if self.is_fitting:
            self.prepare_training(data)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return the engine's optimiser or fused AdamW with a one-cycle schedule, unless others are configured."""
        self.require_network()
        parameters = [parameter for network in self.ensemble.networks for parameter in network.parameters()]
        data = self.datamodule
        options = OptimizerOptions(self.learning_rate, self.weight_decay, self.optimizer, self.lr_scheduler, self.svdpp)
        return make_optimizer_and_schedule(
            options,
            self.trainer,
            self.engine_spec,
            [parameter for parameter in parameters if parameter.requires_grad or self.engine_spec],
            batch_ratio=1.0 if data is None else data.batch_ratio,
        )

    def take_priors(self) -> list[dict[str, Tensor]]:
        """Return the SVD++ terms of each member that the checkpoint brought, which the task then releases."""
        priors: list[dict[str, Tensor]] = self.resume_state.pop(SVDPP_KEY, [])
        return priors

    def adapt_state_dict(self, state: dict[str, Any]) -> None:
        """Remove the members' parameters from a checkpoint that is not resumed; when resuming, check their number.

        Raises:
            CheckpointError: The run to resume has another number of members.
        """
        members = [name for name in state if name.startswith("ensemble.")]
        if not self.is_fitting:
            for name in members:
                del state[name]
            return
        before = len({name.split(".")[2] for name in members})
        if before != len(self.ensemble.members):
            raise CheckpointError(
                f"--model.members: must be {max(before, 1)}, as in the checkpoint, got {self.members}"
                + (", and --model.compress likewise" if max(before, 1) == self.members else "")
            )
