"""The output of a search: printed lines, and a configuration, a table and a picture that every trial renews."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import partial

from cflightning.cli.run_folders import relative
from cflightning.cli.tune.parse import dump
from cflightning.cli.tune.plot import draw_search
from cflightning.cli.tune.ranges import Value, display_choice
from cflightning.cli.tune.trial_cli import VAL_FRACTION, SearchState
from cflightning.cli.tune.trials import Outcome, Trials, best_trial
from cflightning.utils.files import atomic_write, write_csv, write_json

REPORT, CONFIG, TABLE, PICTURE = "tune.json", "best.yaml", "trials.csv", "history.svg"
REDRAW = 10.0
"""Seconds between two pictures; one takes as long as a small trial."""
_show = partial(print, flush=True)


class Report:
    """Prints lines, and writes the files of the folder.

    Args:
        trials: The trials.
        fingerprint: Digest of the search.
        state: Its data, ranges and goal.
        num_trials: Value of `--trials`.
    """

    def __init__(self, trials: Trials, fingerprint: str, state: SearchState, num_trials: int) -> None:
        assert state.table is not None
        assert state.split is not None
        self.trials, self.fingerprint, self.num_trials = trials, fingerprint, num_trials
        self.data, self.rows = state.table.name, state.split.sizes
        self.ranges, self.goal = state.ranges, state.goal
        self.config, self.table, self.picture = (trials.folder / name for name in (CONFIG, TABLE, PICTURE))
        self.default_val_fraction = "data.split.val_fraction" not in state.args.with_value
        last = [name.rpartition(".")[2] for name in self.ranges]
        self.titles = {name: end if last.count(end) == 1 else name for name, end in zip(self.ranges, last, strict=True)}
        self._drawn = -math.inf

    def begin(self) -> None:
        """Print the data, the ranges and the state of a continued search."""
        train, val, test = self.rows
        origin = f" (default --data.split.val_fraction {VAL_FRACTION:g})" if self.default_val_fraction else ""
        _show(
            f"\n{self.data}: {train:,} training rows, {val:,} validation rows{origin}; {test:,} test rows are not used"
        )
        for name, option_range in self.ranges.items():
            _show(f"  --{name}  {option_range}")
        finished = self.trials.outcomes()
        if finished:
            best = best_trial(finished, self.goal)
            value = f", best {self.goal.title} {best.value:.4f} (trial {best.number})" if best else ""
            _show(f"{len(finished)} of {max(self.num_trials, len(finished))} trials are finished already{value}")
        if len(finished) < self.num_trials:
            cells = [f"{'trial':>5}", f"{self.goal.title:>8}", f"{'epochs':>6}", f"{'seconds':>7}"]
            _show("\n" + "  ".join([*cells, *(f"{title:>{_width(title)}}" for title in self.titles.values())]))

    def add(self, number: int) -> None:
        """Print the finished trial of that number, and renew the files."""
        outcomes = self.trials.outcomes()
        new = next(outcome for outcome in outcomes if outcome.number == number)
        best = best_trial(outcomes, self.goal)
        notes = ["defaults"] * (number == 0) + [new.note] * bool(new.note)
        notes += ["best so far"] * (best is not None and best.number == number and len(outcomes) > 1)
        value = f"{new.value:.4f}" if math.isfinite(new.value) else "-"
        cells = [f"{number:>5}", f"{value:>{len(self.goal.title)}}", f"{new.epochs:>6}", f"{new.seconds:>7.1f}"]
        for name, title in self.titles.items():
            cells.append(f"{_format(new.params.get(name)):>{_width(title)}}")
        _show("  ".join([*cells, ", ".join(notes)]).rstrip())
        self._write(outcomes)

    def end(self, stopped: bool) -> Outcome | None:
        """Print the best trial, the files and the next command; return the best trial."""
        outcomes = self.trials.outcomes()
        if outcomes:
            self._drawn = -math.inf
            self._write(outcomes)
        if stopped:
            _show(f"stopped after {len(outcomes)} trials; the same command continues")
        best = best_trial(outcomes, self.goal)
        if best is None:
            return None
        _show(f"\nbest      trial {best.number}, {self.goal.title} {best.value:.4f}{self._gain(outcomes, best)}")
        if best.number:
            _show("          " + "  ".join(f"--{name} {_format(value)}" for name, value in best.params.items()))
        metric = self.goal.title.removeprefix("val ")
        _show(f"          optimistic, since these rows chose the trial; the test of fit gives an unbiased {metric}")
        _show(f"table     {relative(self.table)}")
        if self.picture.is_file():
            _show(f"picture   {relative(self.picture)}")
        _show(f"config    {relative(self.config)}")
        _show(f"next      python -m cflightning fit --config {relative(self.config)}")
        return best

    def _write(self, outcomes: Sequence[Outcome]) -> None:
        """Renew all files."""
        best = best_trial(outcomes, self.goal)
        columns: dict[str, list[object]] = {
            "trial": [outcome.number for outcome in outcomes],
            self.goal.metric.replace("/", "_"): [
                repr(outcome.value) if math.isfinite(outcome.value) else "" for outcome in outcomes
            ],
            "epochs": [outcome.epochs for outcome in outcomes],
            "best_epoch": [outcome.best_epoch for outcome in outcomes],
            "seconds": [f"{outcome.seconds:.2f}" for outcome in outcomes],
            "note": ["defaults" if not outcome.number and not outcome.note else outcome.note for outcome in outcomes],
        }
        for name in self.ranges:
            columns[name] = [_format(outcome.params.get(name), exact=True, missing="") for outcome in outcomes]
        write_csv(self.table, columns)
        content: dict[str, object] = {
            "fingerprint": self.fingerprint,
            "data": self.data,
            "rows": dict(zip(("train", "val"), self.rows[:2], strict=True)),
            "ranges": {name: str(option_range) for name, option_range in self.ranges.items()},
            "trials": len(outcomes),
            "pruned": sum(outcome.note == "pruned" for outcome in outcomes),
        }
        if best is not None:
            content["best"] = {"trial": best.number, self.goal.metric: best.value, "settings": best.settings}
            with atomic_write(self.config) as out:
                out.write(self._comment(outcomes, best) + dump(best.settings))
        write_json(self.trials.folder / REPORT, content)
        if time.monotonic() - self._drawn > REDRAW:
            draw_search(outcomes, self.ranges, self.titles, self.goal, self.picture)
            self._drawn = time.monotonic()

    def _comment(self, outcomes: Sequence[Outcome], best: Outcome) -> str:
        """Return the comment at the head of the configuration."""
        lines = [
            f"Best of {len(outcomes)} trials by python -m cflightning tune (trial {best.number}): {self.data}",
            f"{self.goal.metric} {best.value:.4f} at epoch {best.best_epoch}{self._gain(outcomes, best)}.",
            f"Optimistic, since the {self.rows[1]:,} validation rows chose the trial. For a test:",
            f"  python -m cflightning fit --config {relative(self.config)}",
            "Searched options:",
        ]
        for name, option_range in self.ranges.items():
            value = _format(best.params.get(name), missing="default of fit")
            lines.append(f"  {name}: {value} of {option_range}{'' if best.number else ', by default'}")
        return "".join(f"# {line}\n" for line in lines)

    def _gain(self, outcomes: Sequence[Outcome], best: Outcome) -> str:
        """Compare the best trial with the defaults."""
        defaults = next((outcome for outcome in outcomes if outcome.number == 0), None)
        if not best.number:
            return ", the defaults: no other trial was better" if len(outcomes) > 1 else ", the defaults"
        if defaults is None or not defaults.complete:
            return ""
        gain = self.goal.cost(defaults.value) - self.goal.cost(best.value)
        return f", {gain:.4f} better than the defaults ({defaults.value:.4f})"


def _width(title: str) -> int:
    return max(len(title), 7)


def _format(value: Value | None, exact: bool = False, missing: str = "-") -> str:
    if value is None:
        return missing
    if isinstance(value, str):
        return display_choice(value)
    return repr(value) if exact or isinstance(value, int) else f"{value:.4g}"
