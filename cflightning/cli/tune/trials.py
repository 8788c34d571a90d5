"""The trials of a search in Optuna's journal; the only module that uses Optuna's studies."""

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
STAGES = 10
"""Stages of a schedule: trials are compared at the same stage, whatever their number of epochs."""
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
        stages: Stage of the schedule -> best value so far.
    """

    number: int
    value: float = math.nan
    epochs: int = 0
    best_epoch: int = 0
    seconds: float = 0.0
    note: str = ""
    params: dict[str, Value] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    stages: dict[int, float] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """True if the fit reached its end, with a finite value."""
        return math.isfinite(self.value) and (not self.note or self.note.startswith("as trial"))


class Trials:
    """The trials in a folder, shared by processes through a journal: no pickle, no server.

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
        self.seed = seed
        self.ranges = {name: _distribution(one) for name, one in ranges.items()}
        journal = folder / JOURNAL
        # Trials of different length are compared at the same share of their schedule. With a learning rate that falls
        # to almost 0, the order at half of the schedule is that at its end (rank correlation above .9), before not.
        self.study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(journal), lock_obj=JournalLock(journal))),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=STAGES // 2),
            study_name="tune",
            direction="minimize" if goal.mode == "min" else "maximize",
            load_if_exists=True,
        )

    def outcomes(self) -> list[Outcome]:
        """Return all finished trials, by number."""
        return sorted(
            (
                Outcome(**trial.user_attrs[OUTCOME], stages=dict(trial.intermediate_values))
                for trial in self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
                if OUTCOME in trial.user_attrs
            ),
            key=lambda outcome: outcome.number,
        )

    def discard_running(self) -> None:
        """Discard the trials of processes that are gone; to be called when no process is left."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self.study.tell(trial.number, state=TrialState.FAIL)

    def add_defaults(self, outcome: Outcome) -> None:
        """Add the trial without ranges, with those of its parameters that are inside their ranges."""
        params = {name: outcome.params[name] for name in self.ranges if name in outcome.params}
        inside = {name: value for name, value in params.items() if _contains(self.ranges[name], value)}
        complete = outcome.complete
        self.study.add_trial(
            create_trial(
                state=TrialState.COMPLETE if complete else TrialState.PRUNED,
                value=outcome.value if complete else None,
                params=inside,
                distributions={name: self.ranges[name] for name in inside},
                intermediate_values=outcome.stages,
                user_attrs={OUTCOME: _attributes(outcome)},
            )
        )

    def start(self, number: int) -> Trial:
        """Start a trial with parameters from the sampler."""
        stream = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        self.study.sampler = optuna.samplers.TPESampler(seed=stream)
        return Trial(self, self.study.ask(fixed_distributions=self.ranges), number)


class Trial:
    """A running trial.

    Args:
        trials: Trials of the search.
        trial: Trial of Optuna.
        number: Number of the trial in the search.
    """

    def __init__(self, trials: Trials, trial: optuna.Trial, number: int) -> None:
        self.trials, self.trial = trials, trial
        self.outcome = Outcome(number, params={name: trial.params[name] for name in trials.ranges})

    def duplicate_of(self) -> Outcome | None:
        """Return a finished trial with the same parameters, which need no second fit since fits are deterministic."""
        for other in self.trials.outcomes():
            if other.params == self.outcome.params and (other.complete or other.note == "diverged"):
                return other
        return None

    def report(self, stage: int, value: float) -> bool:
        """Report the best value up to a stage of the schedule; return whether to prune the trial."""
        self.trial.report(value, stage)
        return self.trial.should_prune()

    def finish(self, outcome: Outcome) -> None:
        """Add the outcome."""
        self.trial.set_user_attr(OUTCOME, _attributes(outcome))
        if outcome.complete:
            self.trials.study.tell(self.trial, outcome.value)
        else:  # so that the sampler avoids these parameters
            self.trials.study.tell(self.trial, state=TrialState.PRUNED)

    def discard(self) -> None:
        """Discard the trial, as if it had not been started."""
        self.trials.study.tell(self.trial, state=TrialState.FAIL)


def best_trial(outcomes: Iterable[Outcome], goal: Goal = RATINGS) -> Outcome | None:
    """Return the first complete trial with the best value; None without any."""
    complete = (outcome for outcome in outcomes if outcome.complete)
    return min(complete, key=lambda outcome: goal.cost(outcome.value), default=None)


def _distribution(one: Range) -> BaseDistribution:
    if isinstance(one, Choices):
        return CategoricalDistribution(one.texts)
    if one.whole:
        return IntDistribution(int(one.low), int(one.high), log=one.log, step=int(one.step or 1))
    return FloatDistribution(one.low, one.high, log=one.log, step=one.step)


def _contains(distribution: BaseDistribution, value: Value) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    if isinstance(value, bool | str) or not isinstance(
        value, int if isinstance(distribution, IntDistribution) else float
    ):
        return False
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    on_grid = step is None or abs((value - low) / step - round((value - low) / step)) < 1e-9
    return bool(low <= value <= high and on_grid)


def _attributes(outcome: Outcome) -> dict[str, object]:
    return {name: value for name, value in asdict(outcome).items() if name != "stages"}
