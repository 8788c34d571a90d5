"""One trial: parameters from Optuna, a fit, and its outcome in the journal."""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import replace

import optuna
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from cflightning.cli.run_folders import TRIAL
from cflightning.cli.tune.defaults import values_in_effect
from cflightning.cli.tune.ranges import as_argument, set_option
from cflightning.cli.tune.trial_cli import SearchState, TrialCLI
from cflightning.cli.tune.trials import Outcome, Trials
from cflightning.errors import CFLightningError, ConfigError, StorageError

FAILURES = (CFLightningError, MisconfigurationException, MemoryError, torch.OutOfMemoryError)
"""Errors that the parameters of a trial can cause; they end the trial, but not the search."""


def run_default_trial(state: SearchState, trials: Trials) -> None:
    """Fit the settings without ranges as trial 0, and add the outcome."""
    outcome = Outcome(0)
    rungs = fit_trial(state, trials, outcome)
    trials.add_defaults(outcome, rungs)


def run_trial(number: int, state: SearchState, trials: Trials) -> None:
    """Get parameters from Optuna, fit them unless a finished trial has the same, and add the outcome.

    Args:
        number: Number of the trial.
        state: State that all fits of the process share.
        trials: Trials of the search.
    """
    trial = trials.ask(number)
    outcome = Outcome(number, params=dict(trial.params))
    if (same := trials.find(trial.params)) is not None:
        outcome = replace(same, number=number, seconds=0.0, note=same.note or f"as trial {same.number}")
    else:
        try:
            fit_trial(state, trials, outcome, trial)
        except StorageError:  # not caused by the parameters
            raise
        except FAILURES as error:
            outcome.note = f"failed: {' '.join(str(error).split())}"
    trials.tell(trial, outcome)


def fit_trial(
    state: SearchState, trials: Trials, outcome: Outcome, trial: optuna.Trial | None = None
) -> dict[int, float]:
    """Fit the parameters of a trial.

    Args:
        state: State that all fits of the process share.
        trials: Trials of the search, in whose folder a temporary one is made.
        outcome: Has the parameters; gets the results.
        trial: Trial of Optuna, which can be pruned; None for the defaults.

    Returns:
        Rung -> best value so far.

    Raises:
        Stopped: A signal ended the command.
    """
    began = time.perf_counter()
    args = state.fit_args + [f"--{name}={as_argument(value)}" for name, value in outcome.params.items()]
    with tempfile.TemporaryDirectory(dir=trials.folder, prefix=TRIAL) as scratch:
        try:
            cli = TrialCLI(args, state, scratch, trial)
        except SystemExit:
            raise ConfigError("fit refuses the values of the trial, for the reason above") from None
    progress = cli.progress
    finite = [value for value in progress.values if math.isfinite(value)]
    outcome.value = min(finite, key=state.goal.cost, default=math.nan)
    outcome.best_epoch = progress.values.index(outcome.value) + 1 if finite else 0
    outcome.epochs = len(progress.values)
    outcome.note = progress.note if finite or progress.note else "not validated"
    outcome.settings = cli.settings
    for name, value in outcome.params.items():
        set_option(outcome.settings, name, value)  # also if it equals the default of `fit`
    outcome.seconds = time.perf_counter() - began
    outcome.params = outcome.params or values_in_effect(cli.config["fit"], cli.model, cli.trainer, state.ranges)
    return progress.rungs
