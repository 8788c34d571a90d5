"""The trials of a search in Optuna's journal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial

from cflightning.cli.tune.goals import RATINGS, Goal
from cflightning.cli.tune.journal import JournalLock
from cflightning.cli.tune.ranges import Choices, Range, Value

JOURNAL = "journal.log"
NUM_RUNGS = 10
"""Rungs of a schedule of epochs; trials are compared at the same rung, whatever their number of epochs."""
OUTCOME = "outcome"
"""Key of the outcome among the attributes of a trial of Optuna."""


@dataclass
class Outcome:
    """The parameters and the result of a trial.

    Attributes:
        number: Number of the trial in the search; 0 has the defaults.
        value: Goal metric of the best epoch, up to the stop of a pruned trial; NaN without one.
        epochs: Trained epochs.
        best_epoch: Best epoch, from 1; 0 without one.
        seconds: Duration.
        note: Empty; or `pruned`, `diverged`, a failure, or the earlier trial with the same parameters.
        params: Option -> value; those of the defaults where they are known.
        settings: Configuration for `fit` with the same result.
    """

    number: int
    value: float = math.nan
    epochs: int = 0
    best_epoch: int = 0
    seconds: float = 0.0
    note: str = ""
    params: dict[str, Value] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """True if the fit reached its end, with a finite value."""
        return math.isfinite(self.value) and (not self.note or self.note.startswith("as trial"))


class Trials:
    """The trials in a folder: a study of Optuna, which processes share through a journal.

    `Study.optimize` is not used: it draws from one random stream, so a continued search would draw other parameters
    than an uninterrupted one. Here every trial has its own stream, by the seed of the search and its number.

    Args:
        folder: An existing folder.
        ranges: Option -> range.
        seed: Seed of the search.
        goal: Metric by which trials are compared.
    """

    def __init__(self, folder: Path, ranges: Mapping[str, Range], seed: int, goal: Goal = RATINGS) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.folder, self.seed = folder, seed
        self.distributions = {name: _distribution(option_range) for name, option_range in ranges.items()}
        journal = folder / JOURNAL
        # Trials of different length are compared at the same share of their schedule. With a learning rate that falls
        # to almost 0, the order at half of the schedule is that at its end (rank correlation above .9), before not.
        self.study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(journal), lock_obj=JournalLock(journal))),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=NUM_RUNGS // 2),
            study_name="tune",
            direction="minimize" if goal.mode == "min" else "maximize",
            load_if_exists=True,
        )

    def outcomes(self) -> list[Outcome]:
        """Return all finished trials, by number."""
        finished = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        outcomes = (Outcome(**trial.user_attrs[OUTCOME]) for trial in finished if OUTCOME in trial.user_attrs)
        return sorted(outcomes, key=lambda outcome: outcome.number)

    def discard_running(self) -> None:
        """Mark the trials of processes that are gone as failed; to be called when no process is left."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self.study.tell(trial.number, state=TrialState.FAIL)

    def add_defaults(self, outcome: Outcome, rungs: Mapping[int, float]) -> None:
        """Add the trial without ranges, with those of its parameters that are inside their ranges.

        Args:
            outcome: Its outcome.
            rungs: Rung -> best value so far.
        """
        inside = {
            name: outcome.params[name]
            for name, distribution in self.distributions.items()
            if name in outcome.params and _contains(distribution, outcome.params[name])
        }
        self.study.add_trial(
            create_trial(
                state=TrialState.COMPLETE if outcome.complete else TrialState.PRUNED,
                value=outcome.value if outcome.complete else None,
                params=inside,
                distributions={name: self.distributions[name] for name in inside},
                intermediate_values=dict(rungs),
                user_attrs={OUTCOME: asdict(outcome)},
            )
        )

    def ask(self, number: int) -> optuna.Trial:
        """Start the trial of that number, with parameters from the sampler."""
        stream = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        self.study.sampler = optuna.samplers.TPESampler(seed=stream)
        return self.study.ask(fixed_distributions=self.distributions)

    def tell(self, trial: optuna.Trial, outcome: Outcome) -> None:
        """Finish a trial with its outcome."""
        trial.set_user_attr(OUTCOME, asdict(outcome))
        if outcome.complete:
            self.study.tell(trial, outcome.value)
        else:  # so that the sampler avoids these parameters
            self.study.tell(trial, state=TrialState.PRUNED)

    def find(self, params: Mapping[str, Value]) -> Outcome | None:
        """Return a finished trial with these parameters, which need no second fit since fits are deterministic."""
        for outcome in self.outcomes():
            if outcome.params == params and (outcome.complete or outcome.note == "diverged"):
                return outcome
        return None


def best_trial(outcomes: Iterable[Outcome], goal: Goal = RATINGS) -> Outcome | None:
    """Return the first complete trial with the best value; None without any."""
    complete = (outcome for outcome in outcomes if outcome.complete)
    return min(complete, key=lambda outcome: goal.cost(outcome.value), default=None)


def _distribution(option_range: Range) -> BaseDistribution:
    if isinstance(option_range, Choices):
        return CategoricalDistribution(option_range.texts)
    if option_range.whole:
        return IntDistribution(
            int(option_range.low), int(option_range.high), log=option_range.log, step=int(option_range.step or 1)
        )
    return FloatDistribution(option_range.low, option_range.high, log=option_range.log, step=option_range.step)


def _contains(distribution: BaseDistribution, value: Value) -> bool:
    try:
        create_trial(value=0.0, params={"": value}, distributions={"": distribution})
    except ValueError:
        return False
    return True
