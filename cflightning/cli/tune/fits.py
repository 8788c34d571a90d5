"""The command line's fit as a trial of a search: without a test, and without leaving anything behind."""

from __future__ import annotations

import math
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.cli import ArgsType, LightningArgumentParser
from lightning.pytorch.trainer import Trainer

from cflightning.cli.fit import CFLightningCLI, objective_of
from cflightning.cli.fit import main as fit
from cflightning.cli.run_folders import TRIAL
from cflightning.cli.tune.defaults import in_effect
from cflightning.cli.tune.goals import LISTS, RATINGS, Goal
from cflightning.cli.tune.parse import Asked
from cflightning.cli.tune.ranges import Range, as_text, put
from cflightning.cli.tune.trials import STAGES, Outcome
from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.splits.split import Split
from cflightning.data.table import RatingTable
from cflightning.errors import ConfigError
from cflightning.tasks.ranking import RATING

VAL_FRACTION = 0.1
"""Unless another is given; a twentieth, as fit takes, is little to compare many trials by."""


class Shared:
    """What the fits of one process have in common.

    Args:
        asked: by the user.
        ranges: option -> range, where they are known already.
        goal: likewise; the first fit says it.
    """

    def __init__(self, asked: Asked, ranges: Mapping[str, Range] | None = None, goal: Goal = RATINGS) -> None:
        self.asked, self.ranges, self.goal = asked, dict(asked.ranges if ranges is None else ranges), goal
        # First, so that whatever the user gives holds.
        self.args = ["fit", "--data.val_fraction", str(VAL_FRACTION), *asked.args]
        self.table: RatingTable | None = None
        self.split: Split | None = None

    def lend(self, data: RatingsDataModule) -> None:
        """Read and cut the table once."""
        if self.table is None or self.split is None:
            self.table, self.split = data.table, data.split
        data.table, data.split = self.table, self.split


class Watch(Callback):
    """Follows the figure that is chosen by, from epoch to epoch.

    Args:
        goal: which figure.
        worse: is told each stage of the schedule and the best figure so far; says whether to stop.
    """

    def __init__(self, goal: Goal, worse: Callable[[int, float], bool]) -> None:
        self.goal, self.worse = goal, worse
        self.curve: list[float] = []
        self.stages: dict[int, float] = {}
        self.note = ""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report; end the training where it is no use."""
        if self.goal.metric not in trainer.callback_metrics:  # not every epoch need be validated
            self.curve.append(self.goal.worst)
            return
        self.curve.append(float(trainer.callback_metrics[self.goal.metric]))
        done, planned = trainer.current_epoch + 1, trainer.max_epochs
        if not math.isfinite(self.curve[-1]):
            self.note = "diverged"
        else:
            stage = STAGES * done // planned if planned and planned > 0 else done
            for at in range(max(self.stages, default=0) + 1, stage + 1):
                self.stages[at] = min(self.curve, key=self.goal.cost)
                if self.worse(at, self.stages[at]) and done != planned:
                    self.note = "pruned"
        if self.note:
            trainer.should_stop = True


class TrialCLI(CFLightningCLI):
    """Fits once, with the drawn values, and measures nothing but what is chosen by.

    Args:
        shared: by all fits of the process.
        watch: of this one.
        folder: for whatever callbacks write.
        args: Of the command line's class.
        kwargs: Likewise.
    """

    settings: dict[str, Any]

    def __init__(self, shared: Shared, watch: Watch, folder: str, *args: Any, **kwargs: Any) -> None:
        self.shared, self.watch, self.folder = shared, watch, folder
        super().__init__(*args, **{**kwargs, "save_config_callback": None})

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Keep what the user has given, as a config."""
        super().parse_arguments(parser, args)
        self.settings = yaml.safe_load(self.of_command.dump(self.config["fit"], skip_default=True)) or {}
        self.settings.pop("config", None)  # the files' names; what they say stands in the rest

    def before_instantiate_classes(self) -> None:
        """Refuse what makes no search; leave nothing behind."""
        config = self.config[self.subcommand]
        trainer = config.trainer
        for key, given, instead in (
            ("ckpt_path", self.checkpoint, "every trial starts anew; leave it out"),
            ("trainer.fast_dev_run", trainer.fast_dev_run, "that measures nothing; leave it out"),
            ("checkpoint.dirpath", config.checkpoint.dirpath, "trials keep no checkpoint; leave it out"),
        ):
            if given:
                raise ConfigError(f"--{key}: is {given}, but {instead}")
        if trainer.num_nodes != 1 or not _one(trainer.devices):
            raise ConfigError(
                f"--trainer.devices: must be 1 for tune, got {trainer.devices} on {trainer.num_nodes} node(s); "
                "several processes share the trials by --jobs"
            )
        if config.data.init_args.get("val_fraction") == 0 or trainer.limit_val_batches == 0:
            raise ConfigError(
                "--data.val_fraction: must be above 0 for tune, got 0; settings are chosen on the validation slice "
                "(leave it out for a tenth)"
            )
        objective = objective_of(config)
        goal = self.watch.goal = self.shared.goal = RATINGS if objective in RATING else LISTS
        given = config.checkpoint.monitor, config.checkpoint.mode
        if given not in (RATINGS[:2], goal[:2]):  # the first is what stands there if nothing was given
            raise ConfigError(
                f"--checkpoint.monitor: must be {goal.metric} ({goal.mode}) for tune, got {given[0]} ({given[1]}); "
                "leave it out"
            )
        if "objective" in config.model.init_args:
            # Lists of factors of their own, beside ratings, would cost and change nothing.
            config.model.init_args.objective = "mse" if goal is RATINGS else objective
        beside = [name for name in self.shared.ranges if name.startswith("model.ranking.")]
        if goal is RATINGS and beside:
            raise ConfigError(
                f"--{beside[0]}: must be a value, got a range; tune chooses by {goal.metric} with --model.objective "
                f"{objective}, which it does not change (search with ials, bce, softmax or svd alone)"
            )
        if trainer.devices == "auto":
            trainer.devices = 1
        trainer.logger = False
        config.checkpoint.save_top_k = config.last_checkpoint.save_top_k = 0
        for key in ("enable_progress_bar", "enable_model_summary"):
            trainer[key] = False
        super().before_instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """A Trainer that is watched, on the table that the process has read."""
        self.shared.lend(self.datamodule)
        trainer = self.config_init[self.subcommand]["trainer"]
        trainer["callbacks"] = [*(trainer["callbacks"] or []), self.watch]
        return super().instantiate_trainer(default_root_dir=self.folder, **kwargs)

    def after_fit(self) -> None:
        """No test, and no report of one."""


def start(args: list[str], kind: Callable[..., TrialCLI], started: float | None = None) -> TrialCLI:
    """The command line's fit, as another kind of it.

    Args:
        args: with `fit`.
        kind: its class.
        started: `time.perf_counter()` when the process began.
    """
    with warnings.catch_warnings():
        # The process has arguments as well, and they are not fit's.
        warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
        cli = fit(args, started=started, kind=kind)
    assert isinstance(cli, TrialCLI)
    return cli


def run(shared: Shared, outcome: Outcome, scratch: Path, worse: Callable[[int, float], bool]) -> None:
    """Fit once.

    Args:
        shared: by all fits of the process.
        outcome: what was drawn; gets the rest.
        scratch: a folder in which one is made, and removed in the end.
        worse: see `Watch`.

    Raises:
        Stopped: by a signal.
    """
    began = time.perf_counter()
    watch = Watch(shared.goal, worse)
    args = shared.args + [f"--{name}={as_text(value)}" for name, value in outcome.drawn.items()]
    with tempfile.TemporaryDirectory(dir=scratch, prefix=TRIAL) as folder:
        try:
            cli = start(args, partial(TrialCLI, shared, watch, folder))
        except SystemExit:
            raise ConfigError("fit refuses the drawn values; its reason stands above") from None
    finite = [value for value in watch.curve if math.isfinite(value)]
    outcome.value = min(finite, key=watch.goal.cost, default=math.nan)
    outcome.best_epoch = watch.curve.index(outcome.value) + 1 if finite else 0
    outcome.epochs = len(watch.curve)
    outcome.note = watch.note if finite or watch.note else "not validated"
    outcome.stages = watch.stages
    outcome.settings = cli.settings
    for name, value in outcome.drawn.items():
        put(outcome.settings, name, value)  # also where it is fit's default
    outcome.seconds = time.perf_counter() - began
    outcome.drawn = outcome.drawn or in_effect(cli.config["fit"], cli.model, cli.trainer, shared.ranges)


def _one(devices: Any) -> bool:
    return str(devices) in ("auto", "1") or (isinstance(devices, list) and len(devices) == 1)
