"""A LightningModule whose checkpoints are self-contained: its network is built from the checkpoint alone."""

from __future__ import annotations

import logging
import multiprocessing
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from cflightning.checkpoint import format as checkpoints
from cflightning.checkpoint.format import CheckpointMetadata
from cflightning.checkpoint.paths import confine_states
from cflightning.checkpoint.settings import check_names, plain_settings
from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.leakage import Use, check_rows
from cflightning.data.splits.split import TRAIN
from cflightning.data.vocabulary import Vocabulary
from cflightning.errors import CheckpointError
from cflightning.models.network import RatingNetwork
from cflightning.utils.distributed import in_group
from cflightning.utils.torch_threads import one_thread

log = logging.getLogger(__name__)
STAGES: dict[Any, Use] = {TrainerFn.FITTING: "fit", TrainerFn.VALIDATING: "validate", TrainerFn.TESTING: "test"}


class CheckpointedTask(LightningModule, ABC):
    """A task that has a network as soon as it has met data or a checkpoint.

    Sizes and rating range come from the training part, or from the checkpoint, whatever the data at hand.

    Args:
        seed: Seed of the initial parameters.
    """

    network: RatingNetwork

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.vocabulary: Vocabulary | None = None
        self.metadata = CheckpointMetadata()
        self.resume_state: dict[str, Any] = {}  # training state of the checkpoint, until training starts

    @abstractmethod
    def build_network(
        self, num_users: int, num_items: int, rating_range: tuple[float, float] | None, mean_rating: float | None
    ) -> RatingNetwork:
        """Make the network.

        Args:
            num_users: Number of user indices, the unknown user included.
            num_items: Number of item indices, the unknown item included.
            rating_range: Lowest and highest rating; None if no ratings are predicted.
            mean_rating: Mean rating of the training part; likewise.
        """

    @abstractmethod
    def prepare_training(self, data: RatingsDataModule) -> None:
        """Select what trains the network, once it is built and before data are loaded."""

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

    def require_network(self) -> None:
        """Raise a CheckpointError if there is no network."""
        if self.vocabulary is None:
            raise CheckpointError(
                f"{type(self).__name__}: has no network yet; "
                "fit it with a RatingsDataModule (Trainer.fit(task, data)), or load a checkpoint (ckpt_path=...)"
            )

    def build(self, vocabulary: Vocabulary, metadata: CheckpointMetadata) -> None:
        """Build the network for a vocabulary, without a change of the global random state.

        Args:
            vocabulary: Vocabulary of the data or the checkpoint.
            metadata: Metadata of the data or the checkpoint.
        """
        self.metadata, self.vocabulary = metadata, vocabulary
        sizes = vocabulary.users.num_embeddings, vocabulary.items.num_embeddings
        with torch.random.fork_rng(devices=[]):  # the same initial parameters on every device
            torch.manual_seed(self.seed)
            self.network = self.build_network(*sizes, metadata.rating_range, metadata.mean_rating)

    def check_data(self, metadata: CheckpointMetadata, data: RatingsDataModule) -> None:
        """Raise if training rows of a checkpoint would test it, or training would continue with other data."""
        stage = STAGES.get(self.trainer.state.fn)
        if stage is not None and metadata.data is not None:
            check_rows(metadata.data, data, stage)
        elif stage == "fit":  # a checkpoint without provenance
            before, now = metadata.train_rows, data.split.sizes[TRAIN]
            if before is not None and before != now:
                log.warning(
                    "the checkpoint was trained on %d rows, now there are %d: is it the right data?", before, now
                )

    # Checkpoints -----------------------------------------------------------------------------------------------------

    @property
    def engine_name(self) -> str:
        """Name of the engine that trains."""
        return "autograd"

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add vocabulary and metadata under the key `cflightning`."""
        if self.vocabulary is None:
            return
        trainer, data = self.attached_trainer, self.datamodule
        metrics = {} if trainer is None else {name: float(value) for name, value in trainer.callback_metrics.items()}
        task = f"{type(self).__module__}.{type(self).__qualname__}"
        self.metadata = replace(self.metadata, task=task, engine=self.engine_name, metrics=metrics)
        if data is not None and self.is_fitting:
            self.metadata = replace(self.metadata, data=data.provenance)
        checkpoint[checkpoints.KEY] = checkpoints.pack_metadata(self.vocabulary, self.metadata)
        checkpoint["state_dict"].pop(checkpoints.KEY, None)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take vocabulary and sizes from the checkpoint; the data at hand is read through that vocabulary."""
        self._confine(checkpoint)
        vocabulary, metadata = checkpoints.unpack_metadata(checkpoint)
        if not self.is_fitting:
            # To predict, the checkpoint's settings hold; to resume, those of the run.
            for name, value in plain_settings(checkpoint, "checkpoint").items():
                if name in self.hparams:
                    setattr(self, name, value)
        self.build(vocabulary, metadata)
        self.resume_state = {name: checkpoint[name] for name in self.resume_keys() if name in checkpoint}
        self.adapt_state_dict(checkpoint["state_dict"])
        if (data := self.datamodule) is None:
            return
        data.vocabulary = vocabulary
        self.check_data(metadata, data)
        if self.is_fitting:
            self.prepare_training(data)  # again, for the network of the checkpoint
            if (metadata.engine or self.engine_name) != self.engine_name:  # each engine has a state of its own
                raise CheckpointError(
                    f"--model.engine: must be {metadata.engine} to resume a run of {metadata.engine}, "
                    f"got {self.engine_name}"
                )

    def resume_keys(self) -> tuple[str, ...]:
        """Return the keys of a checkpoint under which training state is stored."""
        return ()

    def adapt_state_dict(self, state: dict[str, Any]) -> None:
        """Remove parameters that prediction does not need from a checkpoint; refuse a run that cannot be resumed."""
        return

    def _confine(self, checkpoint: dict[str, Any]) -> None:
        """Restrict the files that callback states name to this run's, before the Trainer restores the states."""
        trainer = self.attached_trainer
        callbacks = [] if trainer is None else trainer.checkpoint_callbacks
        folders = [str(folder) for callback in callbacks if (folder := getattr(callback, "dirpath", None))]
        path = None if trainer is None or not trainer.ckpt_path else str(trainer.ckpt_path)
        confine_states(checkpoint, folders, path)

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the task of a checkpoint file, its network built and filled, in evaluation mode on the CPU.

        No code of the file runs, and no class is imported for it.

        Args:
            checkpoint_path: A local file.
            args: None; the checkpoint has all settings.
            kwargs: Only `weights_only`, which changes nothing.

        Raises:
            CheckpointError: The file cannot be read, is of another task, has settings that do not fit, or other
                arguments are given.
        """
        if args or set(kwargs) - {"weights_only"}:
            raise CheckpointError(
                f"load_from_checkpoint: takes the file alone, got {', '.join(kwargs) or 'more arguments'}; set "
                "attributes of the task that it returns"
            )
        path, content = checkpoint_path, checkpoints.read_checkpoint(checkpoint_path)
        kind = task_class(content, str(path))
        if not issubclass(kind, cls):
            raise CheckpointError(f"{path}: must be of {cls.__name__}, but is of {kind.__name__}")
        settings = plain_settings(content, str(path))
        check_names(settings, kind, str(path))
        try:
            task = kind(**settings)
            task.on_load_checkpoint(content)
            task.load_state_dict(content["state_dict"])
        except CheckpointError:
            raise
        except Exception as error:  # settings and tables that do not fit together fail in many ways
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise CheckpointError(f"{path}: does not fit {kind.__name__} ({reason[:200]}); was it edited?") from error
        return task.eval()

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


def task_class(content: dict[str, Any], source: str) -> type[CheckpointedTask]:
    """Return the class of the task that wrote a checkpoint, among the imported ones; it is never imported.

    Args:
        content: A loaded checkpoint.
        source: Its file, for messages.

    Raises:
        CheckpointError: See `unpack_metadata`, or there is no such class.
    """
    _, metadata = checkpoints.unpack_metadata(content, source)
    for kind in _subclasses(CheckpointedTask):  # type: ignore[type-abstract]
        if f"{kind.__module__}.{kind.__qualname__}" == metadata.task:
            return kind
    raise CheckpointError(f"{source}: was written by the task {metadata.task[:100]}; import its package first")


def _subclasses(kind: type[CheckpointedTask]) -> Iterator[type[CheckpointedTask]]:
    for subclass in reversed(kind.__subclasses__()):  # the latest definition of a name first
        yield subclass
        yield from _subclasses(subclass)
