"""The trials of a search: how they are kept, drawn, compared and gone on with. Optuna is known here alone."""

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
from optuna.trial import FrozenTrial, TrialState, create_trial

from cflightning.cli.tune.goals import RATINGS, Goal
from cflightning.cli.tune.journal import JournalLock
from cflightning.cli.tune.ranges import Choices, Range

JOURNAL = "journal.log"
STAGES = 10
"""Of a trial's schedule: trials are compared at the same stage, whatever their number of epochs."""
OUTCOME = "outcome"


@dataclass
class Outcome:
    """What a trial came to.

    Attributes:
        turn: its number in the search, from 0, the defaults.
        value: what is chosen by, of the best epoch; of those before it was cut short; NaN where there is none.
        epochs: that were trained.
        best_epoch: from 1; 0 where there is none.
        seconds: of the whole trial.
        note: empty; or `pruned`, `diverged`, what failed, or whose trial's settings it has.
        drawn: option -> value; of the defaults what they come to, where that is known.
        settings: a config for fit that gives the same.
        stages: stage of the schedule -> best value by then.
    """

    turn: int
    value: float = math.nan
    epochs: int = 0
    best_epoch: int = 0
    seconds: float = 0.0
    note: str = ""
    drawn: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    stages: dict[int, float] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether it went its whole way."""
        return math.isfinite(self.value) and (not self.note or self.note.startswith("as trial"))


class Trials:
    """The trials in a folder, shared by processes through a journal; no pickle, no server.

    Args:
        folder: must exist.
        ranges: option -> range.
        seed: of the search; every turn has a stream of its own, so that a search that goes on draws what it would
            have drawn.
        goal: what they are compared by.
    """

    def __init__(self, folder: Path, ranges: Mapping[str, Range], seed: int, goal: Goal = RATINGS) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.seed = seed
        self.ranges = {name: _distribution(one) for name, one in ranges.items()}
        journal = folder / JOURNAL
        # Trials of different length are compared at the same share of their schedule. With a rate that goes down to
        # nearly 0, the order at half of it is that of the ends (rank correlation .9 and more), before that it is not.
        self.study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(journal), lock_obj=JournalLock(journal))),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=STAGES // 2),
            study_name="tune",
            direction="minimize" if goal.mode == "min" else "maximize",
            load_if_exists=True,
        )

    def outcomes(self) -> list[Outcome]:
        """All that are finished, by turn."""
        return sorted(
            (
                _outcome(trial)
                for trial in self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
                if OUTCOME in trial.user_attrs
            ),
            key=lambda outcome: outcome.turn,
        )

    def give_up_running(self) -> None:
        """End the trials of processes that are gone; only where no process is left."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self.study.tell(trial.number, state=TrialState.FAIL)

    def add_defaults(self, outcome: Outcome) -> None:
        """Keep the trial without ranges; what it drew counts as far as it lies in them."""
        drawn = {name: outcome.drawn[name] for name in self.ranges if name in outcome.drawn}
        inside = {name: value for name, value in drawn.items() if _contains(self.ranges[name], value)}
        complete = outcome.complete
        self.study.add_trial(
            create_trial(
                state=TrialState.COMPLETE if complete else TrialState.PRUNED,
                value=outcome.value if complete else None,
                params=inside,
                distributions={name: self.ranges[name] for name in inside},
                intermediate_values=outcome.stages,
                user_attrs={OUTCOME: _plain(outcome)},
            )
        )

    def draw(self, turn: int) -> Trial:
        """Begin a trial."""
        stream = int(np.random.SeedSequence([self.seed, turn]).generate_state(1)[0])
        self.study.sampler = optuna.samplers.TPESampler(seed=stream)
        trial = self.study.ask(fixed_distributions=self.ranges)
        return Trial(self, trial, turn)


class Trial:
    """One that is running.

    Args:
        trials: of the search.
        trial: Optuna's.
        turn: its number in the search.
    """

    def __init__(self, trials: Trials, trial: optuna.Trial, turn: int) -> None:
        self.trials, self.trial = trials, trial
        self.outcome = Outcome(turn, drawn={name: trial.params[name] for name in trials.ranges})

    def twin(self) -> Outcome | None:
        """A finished trial with the same values; fits are repeatable, so there is nothing to learn from another."""
        for other in self.trials.outcomes():
            if other.drawn == self.outcome.drawn and (other.complete or other.note == "diverged"):
                return other
        return None

    def worse(self, stage: int, value: float) -> bool:
        """Report the best value up to a stage of the schedule; returns whether to cut the trial short."""
        self.trial.report(value, stage)
        return self.trial.should_prune()

    def finish(self, outcome: Outcome) -> None:
        """Keep what it came to."""
        self.trial.set_user_attr(OUTCOME, _plain(outcome))
        if outcome.complete:
            self.trials.study.tell(self.trial, outcome.value)
        else:  # so that the search learns to keep away
            self.trials.study.tell(self.trial, state=TrialState.PRUNED)

    def give_up(self) -> None:
        """As if it had not been begun."""
        self.trials.study.tell(self.trial, state=TrialState.FAIL)


def best(outcomes: Iterable[Outcome], goal: Goal = RATINGS) -> Outcome | None:
    """The first with the best value, of those that went their whole way; None without any."""
    return min((one for one in outcomes if one.complete), key=lambda one: goal.cost(one.value), default=None)


def _distribution(one: Range) -> BaseDistribution:
    if isinstance(one, Choices):
        return CategoricalDistribution(one.texts)
    if one.whole:
        return IntDistribution(int(one.low), int(one.high), log=one.log, step=int(one.step or 1))
    return FloatDistribution(one.low, one.high, log=one.log, step=one.step)


def _contains(distribution: BaseDistribution, value: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    if isinstance(value, bool) or not isinstance(value, int if isinstance(distribution, IntDistribution) else float):
        return False
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    on_grid = step is None or abs((value - low) / step - round((value - low) / step)) < 1e-9
    return bool(low <= value <= high and on_grid)


def _plain(outcome: Outcome) -> dict[str, Any]:
    return {name: value for name, value in asdict(outcome).items() if name != "stages"}


def _outcome(trial: FrozenTrial) -> Outcome:
    return Outcome(**trial.user_attrs[OUTCOME], stages=dict(trial.intermediate_values))
