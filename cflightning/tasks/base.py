"""A network with its settings: built for data, or from a checkpoint alone."""

from __future__ import annotations

import multiprocessing
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from cflightning.checkpoint import format as checkpoints
from cflightning.checkpoint.format import ADAPTIVE_PENALTY_KEY, SOLVER_KEY, SVDPP_KEY, CheckpointMetadata
from cflightning.checkpoint.loading import make_task
from cflightning.checkpoint.paths import confine_states
from cflightning.checkpoint.settings import plain_settings
from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.vocabulary import Vocabulary
from cflightning.engines.select import EngineName
from cflightning.engines.svdpp_prior import SvdppSides
from cflightning.errors import CheckpointError, ConfigError
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.models.network import ScoringNetwork
from cflightning.objectives.fold_in import LeastSquaresFoldIn, default_weight
from cflightning.tasks.trained_networks import TrainedNetworks
from cflightning.utils.arguments import Arguments
from cflightning.utils.distributed import in_group
from cflightning.utils.torch_threads import one_thread


class NetworkTask(LightningModule, ABC):
    """A network with its settings; `RecommenderTask` adds training and evaluation.

    The network is built when the task meets data or a checkpoint; from a checkpoint it is the same whatever the data.

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
        engine: autograd (any device, any network, batches of any size); fused, a compiled step for EmbeddingDot on CPUs
            and, with triton, on a CUDA GPU, as accurate and on CPUs many times as fast (logs the reason and falls back
            to autograd where it is not supported); auto, fused on CPUs where it is supported and no option counts
            batches (--data.batch_size, --trainer.max_steps, --trainer.limit_train_batches). The result of autograd and
            of fused on CPUs does not depend on the number of processes. gibbs, the most accurate and slowest: the
            posterior mean of EmbeddingDot by Gibbs sampling, one sweep per epoch, averaged with solutions of the fused
            engine. It hardly depends on settings; an epoch costs as much as some ten of fused.
    """

    network: ScoringNetwork
    ensemble: TrainedNetworks  # the name is part of the members' keys in checkpoints
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
        super().__init__()
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.l2 = l2
        self.l2_exponent = l2_exponent
        self.margin = margin
        self.sigmoid = sigmoid
        self.seed = seed
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.engine = engine
        self.vocabulary: Vocabulary | None = None
        self.metadata = CheckpointMetadata()
        self.resume_state: dict[str, Any] = {}  # training state of the checkpoint, until training starts

    def __repr__(self) -> str:
        """Return the settings that were given, and the sizes if the network is built."""
        given = [f"{name}={value!r}" for name, value in self.hparams.items() if value is not None and name[0] != "_"]
        known = self.vocabulary
        sizes = "" if known is None else f" of {len(known.users):,} users and {len(known.items):,} items"
        return f"{type(self).__name__}({', '.join(given)}){sizes}"

    @property
    def attached_trainer(self) -> Trainer | None:
        """The Trainer that runs the task, or None."""
        try:
            return self.trainer
        except RuntimeError:  # Lightning's way to say that there is none
            return None

    @property
    def is_fitting(self) -> bool:
        """True if a Trainer fits the task."""
        trainer = self.attached_trainer
        return trainer is not None and trainer.state.fn == TrainerFn.FITTING

    @property
    def datamodule(self) -> RatingsDataModule | None:
        """The data of the Trainer, if it is a `RatingsDataModule`."""
        data = getattr(self.attached_trainer, "datamodule", None)
        return data if isinstance(data, RatingsDataModule) else None

    # Network ---------------------------------------------------------------------------------------------------------

    @abstractmethod
    def build_network(
        self, num_users: int, num_items: int, rating_range: tuple[float, float] | None, mean_rating: float | None
    ) -> ScoringNetwork:
        """Make the network.

        Args:
            num_users: Number of user indices, the unknown user included.
            num_items: Number of item indices, the unknown item included.
            rating_range: Lowest and highest rating; None if no ratings are predicted.
            mean_rating: Mean rating of the training part; likewise.
        """

    def build_members(self) -> list[EmbeddingDot]:
        """Make the untrained members of an ensemble, each with its own initial parameters."""
        raise ConfigError(f"--model: {type(self).__name__} has no ensemble")

    def build(self, vocabulary: Vocabulary, metadata: CheckpointMetadata) -> None:
        """Build all networks for a vocabulary, without a change of the global random state.

        Args:
            vocabulary: Vocabulary of the data or the checkpoint.
            metadata: Metadata of the data or the checkpoint.
        """
        self.metadata, self.vocabulary = metadata, vocabulary
        sizes = vocabulary.users.num_embeddings, vocabulary.items.num_embeddings
        with torch.random.fork_rng(devices=[]):  # the same initial parameters on every device
            torch.manual_seed(self.seed)
            self.network = self.build_network(*sizes, metadata.rating_range, metadata.mean_rating)
        self.ensemble = TrainedNetworks(self.network)

    def require_network(self) -> None:
        """Raise a CheckpointError if there is no network."""
        if self.vocabulary is None:
            raise CheckpointError(
                f"{type(self).__name__}: has no network yet; "
                "fit it with a RatingsDataModule (Trainer.fit(task, data)), or load a checkpoint (ckpt_path=...)"
            )

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """Score pairs: int64 [batch] user and item indices -> float32 [batch], rating units."""
        self.require_network()
        scores: Tensor = self.network(user, item)
        return scores

    @property
    def training_dim(self) -> int:
        """Latent factors in training; the served network may have more or fewer."""
        return int(getattr(self.network, "dim", 0))

    @property
    def recommender(self) -> ScoringNetwork:
        """The network whose scores rank."""
        return self.network

    def bundle_fold_in_settings(self, num_items: int) -> LeastSquaresFoldIn:
        """Return the weights by which a bundle folds in users from their interactions.

        Args:
            num_items: Number of item indices, the unknown item included.
        """
        return LeastSquaresFoldIn(default_weight(num_items))

    # Checkpoints -----------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add vocabulary and metadata under the key `cflightning`."""
        if self.vocabulary is None:
            return
        trainer, data = self.attached_trainer, self.datamodule
        metrics = {} if trainer is None else {name: float(value) for name, value in trainer.callback_metrics.items()}
        task = f"{type(self).__module__}.{type(self).__qualname__}"
        self.metadata = replace(self.metadata, task=task, metrics=metrics)
        if data is not None and self.is_fitting:
            self.metadata = replace(self.metadata, data=data.provenance)
        checkpoint[checkpoints.KEY] = checkpoints.pack_metadata(self.vocabulary, self.metadata)
        checkpoint["state_dict"].pop(checkpoints.KEY, None)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take vocabulary and sizes from the checkpoint; the data at hand is read through that vocabulary."""
        trainer = self.attached_trainer
        callbacks = [] if trainer is None else trainer.checkpoint_callbacks
        folders = [str(folder) for callback in callbacks if (folder := getattr(callback, "dirpath", None))]
        path = None if trainer is None or not trainer.ckpt_path else str(trainer.ckpt_path)
        confine_states(checkpoint, folders, path)
        vocabulary, metadata = checkpoints.unpack_metadata(checkpoint)
        if not self.is_fitting:
            # To predict, the checkpoint's settings hold; to resume, those of the run.
            for name, value in plain_settings(checkpoint, "checkpoint").items():
                if name in self.hparams:
                    setattr(self, name, value)
        self.build(vocabulary, metadata)
        # Export and reports read the state of ratings; the state of a solver, as large as the network, only trains.
        kept = SVDPP_KEY, ADAPTIVE_PENALTY_KEY, *([SOLVER_KEY] if self.is_fitting else [])
        self.resume_state = {name: checkpoint[name] for name in kept if name in checkpoint}
        self.adapt_state_dict(checkpoint["state_dict"])

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

    def pop_svdpp_terms(self) -> list[dict[str, Tensor]]:
        """Return and forget the SVD++ terms of the checkpoint, one dict per member."""
        terms: list[dict[str, Tensor]] = self.resume_state.pop(SVDPP_KEY, [])
        return terms

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the task of a checkpoint file, its network built and filled, in evaluation mode on the CPU.

        Args:
            checkpoint_path: A local file.
            args: None; the checkpoint has all settings.
            kwargs: Only `weights_only`, which changes nothing.

        Raises:
            CheckpointError: See `make_task`, or other arguments are given.
        """
        if args or set(kwargs) - {"weights_only"}:
            raise CheckpointError(
                f"load_from_checkpoint: takes the file alone, got {', '.join(kwargs) or 'more arguments'}; set "
                "attributes of the task that it returns"
            )
        return make_task(checkpoint_path, NetworkTask, cls)

    # Processes -------------------------------------------------------------------------------------------------------

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Return the tables; in a spawned or forked training process also vocabulary and metadata."""
        state: dict[str, Any] = super().state_dict(*args, **kwargs)
        if self.vocabulary is not None and in_group() and multiprocessing.parent_process() is not None:
            state[checkpoints.KEY] = checkpoints.pack_metadata(self.vocabulary, self.metadata)
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load tables; those of a training process bring what their network is built from."""
        if checkpoints.KEY in state_dict:
            state_dict = dict(state_dict)
            with one_thread():  # threads that are started here would be missing in the next fork
                self.build(*checkpoints.unpack_metadata({checkpoints.KEY: state_dict.pop(checkpoints.KEY)}))
                return super().load_state_dict(state_dict, strict, assign)
        return super().load_state_dict(state_dict, strict, assign)
