"""What a task does for its network: building it for the data it meets, keeping it in checkpoints, finding it there."""

from __future__ import annotations

import logging
import multiprocessing
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from cflightning.checkpoint import format as checkpoints
from cflightning.checkpoint.rules import check_names, confine_states, plain_settings
from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.loaders.ratings import BatchLoader
from cflightning.data.provenance import Provenance, Stage, check_rows
from cflightning.data.splits.split import TRAIN
from cflightning.data.vocabulary import Vocabulary
from cflightning.engines.base import Engine, EngineSpec
from cflightning.engines.select import EngineName, EngineRequest, select_engine
from cflightning.engines.svdpp_prior import SvdppSides
from cflightning.errors import CheckpointError, ConfigError
from cflightning.models.network import RatingNetwork
from cflightning.tasks.members import Ensemble
from cflightning.tasks.process_watch import ProcessWatch
from cflightning.utils.distributed import check_launch, check_strategy, find_launch, in_group, run_together
from cflightning.utils.torch_threads import one_thread

if TYPE_CHECKING:
    from cflightning.models.embedding_dot import EmbeddingDot

log = logging.getLogger(__name__)
STAGES: dict[Any, Stage] = {TrainerFn.FITTING: "fit", TrainerFn.VALIDATING: "validate", TrainerFn.TESTING: "test"}
SVDPP_KEY = "cflightning_svdpp"
"""Key of a checkpoint under which bags are kept, for training to go on."""


class NetworkTask(LightningModule, ABC):
    """Has a network, made when it meets its data (sizes come from the vocabulary of the training part) or a checkpoint.

    Args:
        seed: Of the initial parameters.
        engine: See `RatingTask`.
    """

    known: ClassVar[dict[str, type[NetworkTask]]] = {}
    """Every imported task by its name in checkpoints; nothing else is ever made from a checkpoint."""

    network: RatingNetwork
    ensemble: Ensemble
    svdpp: SvdppSides = "none"
    members = 1
    """How many of them."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        NetworkTask.known[f"{cls.__module__}.{cls.__qualname__}"] = cls

    def __init__(self, seed: int, engine: EngineName) -> None:
        super().__init__()
        self.seed = seed
        self.engine = engine
        self.vocabulary: Vocabulary | None = None
        self.facts: dict[str, Any] = {}
        self._kept_priors: list[dict[str, Tensor]] = []
        self._synced_step = -1  # the step after which the network was last made of what is trained apart
        self._engine_spec: EngineSpec | None = None
        self._engine: Engine | None = None

    def __repr__(self) -> str:
        """Return the settings that were given, and the sizes where the network is built."""
        given = [f"{name}={value!r}" for name, value in self.hparams.items() if value is not None and name[0] != "_"]
        sizes = (
            ""
            if self.vocabulary is None
            else (f" of {len(self.vocabulary.users):,} users and {len(self.vocabulary.items):,} items")
        )
        return f"{type(self).__name__}({', '.join(given)}){sizes}"

    @abstractmethod
    def build_network(
        self, num_users: int, num_items: int, rating_range: tuple[float, float] | None, mean_rating: float | None
    ) -> RatingNetwork:
        """Make the network.

        Args:
            num_users: Rows of a user table, the unknown row included.
            num_items: Rows of an item table, the unknown row included.
            rating_range: Lowest and highest rating; None where no ratings are predicted.
            mean_rating: Mean rating of the training part; likewise.
        """

    @property
    def trains_ensemble(self) -> bool:
        """Whether networks of `build_member` are trained, and the network that answers is their mean."""
        return False

    def build_member(
        self, num_users: int, num_items: int, rating_range: tuple[float, float] | None, mean_rating: float | None
    ) -> EmbeddingDot:
        """Make a network to be trained in the stead of the one that answers; see `build_network`."""
        raise ConfigError(f"--model: {type(self).__name__} has no networks whose mean could answer")

    def init_members(self) -> list[EmbeddingDot]:
        """`members` networks, each with a start of its own; the first one's is that of a network trained alone."""
        assert self.vocabulary is not None
        sizes = self.vocabulary.users.num_rows, self.vocabulary.items.num_rows
        limits, mean = self._range_and_mean
        found = []
        for number in range(self.members):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed + number * 1_000_003)
                found.append(self.build_member(*sizes, limits, mean))
        return found

    def configure_callbacks(self) -> list[Callback]:
        """Refuse strategies and launchers under which processes would train apart; watch over several processes."""
        check_strategy(self.trainer)
        launch = find_launch()
        if launch is not None and launch.launcher == "torchrun":  # a job of others may mean one training a process
            check_launch(self.trainer, launch)
        watched = any(isinstance(callback, ProcessWatch) for callback in self.trainer.callbacks)  # type: ignore[attr-defined]
        return [] if watched or self.trainer.world_size == 1 else [ProcessWatch()]

    def prepare_data(self) -> None:
        """Let the watch take over the processes, which have found each other by now."""
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, ProcessWatch):
                callback.adopt(self.trainer)

    def configure_model(self) -> None:
        """Build the network for the data at hand, unless a checkpoint has brought one or will."""
        run_together(self._meet_data)

    def _meet_data(self) -> None:
        data = self._data()
        if self.vocabulary is not None:
            if data is not None:
                data.vocabulary = self.vocabulary
                if self.trainer.state.fn == TrainerFn.FITTING:
                    self.facts.pop("data", None)  # from now on of the data at hand
                else:
                    self._compare(self.facts, data)
        elif data is not None and self.trainer.state.fn == TrainerFn.FITTING:
            data.vocabulary = None  # what another task has lent does not count
            self._build(data.vocabulary, self._facts(data))
        if data is not None and self.trainer.state.fn == TrainerFn.FITTING:
            self._choose_engine(data)

    def _facts(self, data: RatingsDataModule) -> dict[str, Any]:
        """What the network has to know of the data, beside the vocabulary."""
        return {"rating_range": [float(v) for v in data.rating_range], "mean_rating": data.mean_rating,
                "train_rows": data.split.sizes[TRAIN]}  # fmt: skip

    @property
    def _engine_name(self) -> str:
        return "autograd" if self._engine_spec is None else self._engine_spec.name

    def _choose_engine(self, data: RatingsDataModule) -> None:
        request = self.engine_request(data.given_batch_size)
        self._set_engine_spec(select_engine(request, self.trainer, self.ensemble.networks), data)

    @abstractmethod
    def engine_request(self, batch_size: int | None) -> EngineRequest:
        """Return the settings that decide which engine trains the networks.

        Args:
            batch_size: Setting `batch_size` of the data; None for the default.
        """

    def _set_engine_spec(self, spec: EngineSpec | None, data: RatingsDataModule) -> None:
        self._engine_spec = spec
        self.automatic_optimization = spec is None
        data.train_loader = BatchLoader if spec is None else spec.make_loader

    @property
    def _range_and_mean(self) -> tuple[tuple[float, float] | None, float | None]:
        """None twice where no ratings are predicted."""
        limits, mean = self.facts["rating_range"], self.facts["mean_rating"]
        return None if limits is None else (limits[0], limits[1]), None if mean is None else float(mean)

    def _build(self, vocabulary: Vocabulary, facts: Mapping[str, Any]) -> None:
        self.facts = dict(facts)
        with torch.random.fork_rng(devices=[]):  # the same start on every device, and nobody's random state changed
            torch.manual_seed(self.seed)
            self.network = self.build_network(
                vocabulary.users.num_rows, vocabulary.items.num_rows, *self._range_and_mean
            )
        self.vocabulary = vocabulary
        training = self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING
        self.ensemble = Ensemble(self.network, self.init_members() if self.trains_ensemble and training else ())

    def _compare(self, facts: Mapping[str, Any], data: RatingsDataModule) -> None:
        """Raise where figures would be of rows that a checkpoint was trained on, or training go on with others."""
        stage = STAGES.get(self.trainer.state.fn)
        kept = Provenance.from_state(facts.get("data"))
        if stage is not None and kept is not None:
            check_rows(kept, data, stage)
        elif stage == "fit":  # of an older version
            before, now = facts.get("train_rows"), data.split.sizes[TRAIN]
            if before is not None and before != now:
                log.warning(
                    "the checkpoint was trained on %d rows, now there are %d: is it the right data?", before, now
                )

    def _compare_learners(self, kept: list[str]) -> None:
        """Raise where a checkpoint has other networks than are to be trained on; by the names of their tables."""
        before = len({name.split(".")[2] for name in kept})
        if before != len(self.ensemble.members):
            raise CheckpointError(
                f"--model.members: must be {max(before, 1)}, as in the checkpoint, got {self.members}"
                + (", and --model.compress likewise" if max(before, 1) == self.members else "")
            )

    def _require_network(self) -> None:
        if self.vocabulary is None:
            raise CheckpointError(
                f"{type(self).__name__}: has no network yet; "
                "fit it with a RatingsDataModule (Trainer.fit(task, data)), or load a checkpoint (ckpt_path=...)"
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
        self.facts["engine"] = self._engine_name
        if (data := self._data()) is not None and self.trainer.state.fn == TrainerFn.FITTING:
            self.facts["data"] = data.provenance.state()
        self.facts["metrics"] = {name: float(value) for name, value in metrics.items()}
        checkpoint[checkpoints.KEY] = checkpoints.pack(self.vocabulary, **self.facts)
        checkpoint["state_dict"].pop(checkpoints.KEY, None)
        if self.ensemble.priors:
            checkpoint[SVDPP_KEY] = self.ensemble.state()
        self._sync_served_network()  # the tables that are already in the checkpoint

    def take_priors(self) -> list[dict[str, Tensor]]:
        """Return the bags of each member that came with the checkpoint; the task holds them no longer."""
        kept, self._kept_priors = self._kept_priors, []
        return kept

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take vocabulary and sizes from the checkpoint; the data at hand is read through that vocabulary."""
        self._confine(checkpoint)
        vocabulary, facts = checkpoints.unpack(checkpoint)
        if self._trainer is None or self.trainer.state.fn != TrainerFn.FITTING:
            # To answer, the checkpoint's choices hold; to train on, those given now.
            for name, value in plain_settings(checkpoint, "checkpoint").items():
                if name in self.hparams:
                    setattr(self, name, value)
        self._build(vocabulary, facts)
        self._kept_priors = checkpoint.get(SVDPP_KEY, [])
        kept = [name for name in checkpoint["state_dict"] if name.startswith("ensemble.")]
        if self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
            self._compare_learners(kept)
        else:  # to answer, the network is enough
            for name in kept:
                del checkpoint["state_dict"][name]
        if (data := self._data()) is not None:
            data.vocabulary = vocabulary
            self._compare(facts, data)
            if self.trainer.state.fn == TrainerFn.FITTING:
                self._choose_engine(data)  # again: what was chosen before is laid out for the network of the data
                before = facts.get("engine", self._engine_name)
                if before != self._engine_name:  # each remembers other things from step to step
                    raise CheckpointError(
                        f"--model.engine: a {before} run can be gone on with by {before} alone, got {self._engine_name}"
                    )

    def _confine(self, checkpoint: dict[str, Any]) -> None:
        """Let the states of callbacks name files of this run alone, before the Trainer hands them out."""
        trainer = self._trainer
        found = getattr(trainer, "checkpoint_callbacks", [])
        folders = [str(one.dirpath) for one in found if getattr(one, "dirpath", None)]
        confine_states(
            checkpoint, folders, None if trainer is None or not trainer.ckpt_path else str(trainer.ckpt_path)
        )

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the task of a checkpoint file, its network built and filled, in evaluation mode on the CPU.

        No code of the file runs, and no class is imported for it.

        Args:
            checkpoint_path: A local file.
            args: None; the checkpoint says everything.
            kwargs: `weights_only` alone, which changes nothing.

        Raises:
            CheckpointError: The file cannot be read, is of another task, holds settings that do not fit, or other
                arguments are given.
        """
        if args or set(kwargs) - {"weights_only"}:
            raise CheckpointError(
                f"load_from_checkpoint: takes the file alone, got {', '.join(kwargs) or 'more arguments'}; set "
                "attributes of the task that it returns"
            )
        path, content = checkpoint_path, checkpoints.read(checkpoint_path)
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

    # Processes ----------------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled: everything but what belongs to a training that is going on."""
        return {**super().__getstate__(), "_engine_spec": None, "_engine": None}

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """The tables; in a process that was spawned or forked to train, also what the network is built from."""
        found: dict[str, Any] = super().state_dict(*args, **kwargs)
        if self.vocabulary is not None and in_group() and multiprocessing.parent_process() is not None:
            found[checkpoints.KEY] = checkpoints.pack(self.vocabulary, **self.facts)  # for `load_state_dict` at home
        return found

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Take tables over; where they come from a process that has trained, build their network first."""
        if checkpoints.KEY in state_dict:
            state_dict = dict(state_dict)
            with one_thread():  # threads that are started here would be missing in the next fork
                self._build(*checkpoints.unpack({checkpoints.KEY: state_dict.pop(checkpoints.KEY)}))
                return super().load_state_dict(state_dict, strict, assign)
        return super().load_state_dict(state_dict, strict, assign)

    def _sync_served_network(self) -> None:
        """Let the network that answers catch up with what is trained."""
        step = self.trainer.global_step if self._trainer is not None else -1
        if step != self._synced_step:
            self.ensemble.sync_served_network()
            self._synced_step = step


def task_class(content: dict[str, Any], source: str) -> type[NetworkTask]:
    """Return the class of the task that wrote a checkpoint, looked up among those that are imported.

    Args:
        content: A loaded checkpoint.
        source: Its file, for messages.

    Raises:
        CheckpointError: See `unpack`, or there is no such class; a checkpoint never imports anything.
    """
    _, facts = checkpoints.unpack(content, source)
    name = facts.get("task")
    kind = NetworkTask.known.get(name) if isinstance(name, str) else None
    if kind is None:
        raise CheckpointError(f"{source}: was written by the task {str(name)[:100]}; import its package first")
    return kind
