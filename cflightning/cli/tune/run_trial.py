"""One trial: parameters from Optuna, a fit, and its outcome in the journal."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from cflightning.cli.run_folders import TRIAL
from cflightning.cli.tune.defaults import values_in_effect
from cflightning.cli.tune.ranges import as_argument, set_option
from cflightning.cli.tune.trial_cli import Report, SearchState, TrialCLI, TrialProgress
from cflightning.cli.tune.trials import Outcome, Trials
from cflightning.errors import CFLightningError, ConfigError, StorageError

FAILURES = (CFLightningError, MisconfigurationException, MemoryError, torch.OutOfMemoryError)
"""Errors that the parameters of a trial can cause; they end the trial, but not the search."""


def run_default_trial(number: int, state: SearchState, trials: Trials, folder: Path) -> None:
    """Fit the settings without ranges, and add the outcome.

    Args:
        number: Number of the trial.
        state: State that all fits of the process share.
        trials: Trials of the search.
        folder: Folder of the search.
    """
    outcome = Outcome(number)
    fit_trial(state, outcome, folder, lambda *_: False)
    trials.add_defaults(outcome)


def run_trial(
    number: int, state: SearchState, trials: Trials, folder: Path, alive: Callable[[], bool] = lambda: True
) -> None:
    """Get parameters from Optuna, fit them unless a finished trial has the same, and add the outcome.

    Args:
        number: Number of the trial.
        state: State that all fits of the process share.
        trials: Trials of the search.
        folder: Folder of the search.
        alive: Whether the parent process is alive; a trial without parent ends.
    """
    trial = trials.start(number)
    outcome = trial.outcome
    duplicate = trial.duplicate_of()
    if duplicate is not None:
        outcome.value, outcome.epochs, outcome.best_epoch = duplicate.value, duplicate.epochs, duplicate.best_epoch
        outcome.settings, outcome.note = duplicate.settings, duplicate.note or f"as trial {duplicate.number}"
        trial.finish(outcome)
        return

    def report(stage: int, value: float) -> bool:
        if not alive():
            raise SystemExit(1)
        return trial.report(stage, value)

    try:
        fit_trial(state, outcome, folder, report)
    except StorageError:  # not caused by the parameters
        trial.discard()
        raise
    except FAILURES as error:
        outcome.note = f"failed: {' '.join(str(error).split())}"
    except BaseException:
        trial.discard()
        raise
    trial.finish(outcome)


def fit_trial(state: SearchState, outcome: Outcome, folder: Path, report: Report) -> None:
    """Fit the parameters of a trial.

    Args:
        state: State that all fits of the process share.
        outcome: Has the parameters; gets the results.
        folder: Folder of the search, in which a temporary one is made.
        report: See `TrialProgress`.

    Raises:
        Stopped: A signal ended the command.
    """
    began = time.perf_counter()
    progress = TrialProgress(state.goal, report)
    args = state.fit_args + [f"--{name}={as_argument(value)}" for name, value in outcome.params.items()]
    with tempfile.TemporaryDirectory(dir=folder, prefix=TRIAL) as scratch:
        try:
            cli = TrialCLI(args, state, progress, scratch)
        except SystemExit:
            raise ConfigError("fit refuses the values of the trial, for the reason above") from None
    finite = [value for value in progress.values if math.isfinite(value)]
    outcome.value = min(finite, key=progress.goal.cost, default=math.nan)
    outcome.best_epoch = progress.values.index(outcome.value) + 1 if finite else 0
    outcome.epochs = len(progress.values)
    outcome.note = progress.note if finite or progress.note else "not validated"
    outcome.stages = progress.stages
    outcome.settings = cli.settings
    for name, value in outcome.params.items():
        set_option(outcome.settings, name, value)  # also if it equals the default of `fit`
    outcome.seconds = time.perf_counter() - began
    outcome.params = outcome.params or values_in_effect(cli.config["fit"], cli.model, cli.trainer, state.ranges)
