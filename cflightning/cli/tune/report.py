"""The output of a search: printed lines, and a configuration, a table and a picture that every trial renews."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cflightning.cli.run_folders import relative
from cflightning.cli.tune.options import Options
from cflightning.cli.tune.parse import dump
from cflightning.cli.tune.plot import draw_search
from cflightning.cli.tune.probe import SearchDescription
from cflightning.cli.tune.ranges import Choices, Value, display_choice
from cflightning.cli.tune.trial_cli import VAL_FRACTION, SearchState
from cflightning.cli.tune.trials import Outcome, best_trial
from cflightning.objectives.settings import SearchRange
from cflightning.utils.files import atomic_write, make_numbered_folder, write_csv

REPORT, CONFIG, TABLE, PICTURE = "tune.json", "best.yaml", "trials.csv", "history.svg"
REDRAW = 10.0
"""Seconds between two pictures; one takes as long as a small trial."""


def find_or_make(root: Path, fingerprint: str) -> Path:
    """Return the folder of the search with this fingerprint; make a new `root/tune_N` if there is none."""
    for path in sorted(root.glob(f"tune_*/{REPORT}")):
        try:
            if json.loads(path.read_text(encoding="utf-8"))["fingerprint"] == fingerprint:
                return path.parent
        except (OSError, ValueError, TypeError, KeyError):  # another program's file, or an edited one
            continue
    folder = make_numbered_folder(root, "tune")
    _write(folder / REPORT, json.dumps({"fingerprint": fingerprint}) + "\n")
    return folder


class Report:
    """Prints lines, and writes the files of the folder.

    Args:
        folder: Folder of the search.
        fingerprint: Digest of the search.
        description: Data of the search.
        state: Its ranges and goal.
        options: Options of the command.
    """

    def __init__(
        self, folder: Path, fingerprint: str, description: SearchDescription, state: SearchState, options: Options
    ) -> None:
        self.folder, self.fingerprint, self.description, self.options = folder, fingerprint, description, options
        self.ranges, self.goal = state.ranges, state.goal
        self.default_val_fraction = "data.split.val_fraction" not in state.args.with_value
        short = [name.rpartition(".")[2] for name in self.ranges]
        self.titles = {
            name: last if short.count(last) == 1 else name for name, last in zip(self.ranges, short, strict=True)
        }
        self._drawn = -math.inf

    def begin(self, finished: Sequence[Outcome]) -> None:
        """Print the data and the ranges."""
        train, val, test = self.description.rows
        origin = f" (default --data.split.val_fraction {VAL_FRACTION:g})" if self.default_val_fraction else ""
        table = self.description.table
        _show(f"\n{table}: {train:,} training rows, {val:,} validation rows{origin}; {test:,} test rows are not used")
        for name, one in self.ranges.items():
            _show(f"  --{name}  {one}")
        if finished:
            best = best_trial(finished, self.goal)
            value = f", best {self.goal.title} {best.value:.4f} (trial {best.number})" if best else ""
            _show(f"{len(finished)} of {max(self.options.trials, len(finished))} trials are finished already{value}")
        if len(finished) < self.options.trials:
            cells = [f"{'trial':>5}", f"{self.goal.title:>8}", f"{'epochs':>6}", f"{'seconds':>7}"]
            _show("\n" + "  ".join([*cells, *(f"{title:>{_width(title)}}" for title in self.titles.values())]))

    def add(self, outcomes: Sequence[Outcome], number: int) -> None:
        """Print a finished trial, and renew the files.

        Args:
            outcomes: All finished trials, by number.
            number: Number of the new one.
        """
        new = next(outcome for outcome in outcomes if outcome.number == number)
        best = best_trial(outcomes, self.goal)
        notes = ["defaults"] * (number == 0) + [new.note] * bool(new.note)
        notes += ["best so far"] * (best is not None and best.number == number and len(outcomes) > 1)
        value = f"{new.value:.4f}" if math.isfinite(new.value) else "-"
        cells = [f"{number:>5}", f"{value:>{len(self.goal.title)}}", f"{new.epochs:>6}", f"{new.seconds:>7.1f}"]
        for name, title in self.titles.items():
            cells.append(f"{_format(new.params.get(name)):>{_width(title)}}")
        _show("  ".join([*cells, ", ".join(notes)]).rstrip())
        self.write(outcomes)

    def end(self, outcomes: Sequence[Outcome], stopped: bool = False) -> None:
        """Print the best trial, the files and the next command."""
        if outcomes:
            self._drawn = -math.inf
            self.write(outcomes)
        if stopped:
            _show(f"stopped after {len(outcomes)} trials; the same command continues")
        best = best_trial(outcomes, self.goal)
        if best is None:
            return
        _show(f"\nbest      trial {best.number}, {self.goal.title} {best.value:.4f}{self._gain(outcomes, best)}")
        if best.number:
            _show("          " + "  ".join(f"--{name} {_format(value)}" for name, value in best.params.items()))
        _show(f"          optimistic, since these rows chose the trial; the test of fit gives an unbiased {self._name}")
        _show(f"table     {relative(self.folder / TABLE)}")
        if (self.folder / PICTURE).is_file():
            _show(f"picture   {relative(self.folder / PICTURE)}")
        _show(f"config    {relative(self.folder / CONFIG)}")
        _show(f"next      python -m cflightning fit --config {relative(self.folder / CONFIG)}")

    @property
    def _name(self) -> str:
        """Name of the metric, without the part of the data."""
        return self.goal.title.removeprefix("val ")

    def write(self, outcomes: Sequence[Outcome]) -> None:
        """Renew all files."""
        best = best_trial(outcomes, self.goal)
        columns: dict[str, list[object]] = {
            "trial": [one.number for one in outcomes],
            self.goal.column: [repr(one.value) if math.isfinite(one.value) else "" for one in outcomes],
            **{name: [getattr(one, name) for one in outcomes] for name in ("epochs", "best_epoch")},
            "seconds": [f"{one.seconds:.2f}" for one in outcomes],
            "note": ["defaults" if not one.number and not one.note else one.note for one in outcomes],
        }
        for name in self.ranges:
            columns[name] = [_format(one.params.get(name), exact=True, missing="") for one in outcomes]
        write_csv(self.folder / TABLE, columns)
        content: dict[str, object] = {
            "fingerprint": self.fingerprint,
            "data": self.description.table,
            "rows": dict(zip(("train", "val"), self.description.rows[:2], strict=True)),
            "ranges": {name: str(one) for name, one in self.ranges.items()},
            "trials": len(outcomes),
            "pruned": sum(one.note == "pruned" for one in outcomes),
        }
        if best is not None:
            content["best"] = {"trial": best.number, self.goal.metric: best.value, "settings": best.settings}
            _write(self.folder / CONFIG, self._comment(outcomes, best) + dump(best.settings))
        _write(self.folder / REPORT, json.dumps(content, indent=2) + "\n")
        if time.monotonic() - self._drawn > REDRAW:
            self._draw(outcomes)
            self._drawn = time.monotonic()

    def _comment(self, outcomes: Sequence[Outcome], best: Outcome) -> str:
        """Return the comment at the head of the configuration."""
        lines = [
            f"Best of {len(outcomes)} trials by python -m cflightning tune (trial {best.number}): "
            f"{self.description.table}",
            f"{self.goal.metric} {best.value:.4f} at epoch {best.best_epoch}{self._gain(outcomes, best)}.",
            f"Optimistic, since the {self.description.rows[1]:,} validation rows chose the trial. For a test:",
            f"  python -m cflightning fit --config {relative(self.folder / CONFIG)}",
            "Searched options:",
        ]
        for name, one in self.ranges.items():
            value = _format(best.params.get(name), missing="default of fit")
            lines.append(f"  {name}: {value} of {one}{'' if best.number else ', by default'}")
        return "".join(f"# {line}\n" for line in lines)

    def _gain(self, outcomes: Sequence[Outcome], best: Outcome) -> str:
        """Compare the best trial with the defaults."""
        defaults = next((one for one in outcomes if one.number == 0), None)
        if not best.number:
            return ", the defaults: no other trial was better" if len(outcomes) > 1 else ", the defaults"
        if defaults is None or not defaults.complete:
            return ""
        return f", {self.goal.gain(best.value, defaults.value):.4f} better than the defaults ({defaults.value:.4f})"

    def _draw(self, outcomes: Sequence[Outcome]) -> None:
        params: dict[str, list[Value | None]] = {}
        for name, one in self.ranges.items():
            values = [outcome.params.get(name) for outcome in outcomes]
            if isinstance(one, Choices):
                values = [display_choice(value) if isinstance(value, str) else None for value in values]
            params[self.titles[name]] = values
        draw_search(
            np.array([outcome.value for outcome in outcomes]),
            np.array([outcome.complete for outcome in outcomes]),
            params,
            {self.titles[name] for name, one in self.ranges.items() if isinstance(one, SearchRange) and one.log},
            self.folder / PICTURE,
            self.goal.title,
            self.goal.mode == "min",
        )


def _width(title: str) -> int:
    return max(len(title), 7)


def _format(value: Value | None, exact: bool = False, missing: str = "-") -> str:
    if value is None:
        return missing
    if isinstance(value, str):
        return display_choice(value)
    return repr(value) if exact or isinstance(value, int) else f"{value:.4g}"


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as out:
        out.write(text)


def _show(line: str) -> None:
    print(line, flush=True)
