"""What a search tells, and leaves behind: a config, a table and a picture, renewed after every trial."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cflightning.cli.tune.fits import VAL_FRACTION, Shared
from cflightning.cli.tune.options import Options
from cflightning.cli.tune.parse import dump
from cflightning.cli.tune.probe import Facts
from cflightning.cli.tune.ranges import Choices, Numbers, shown
from cflightning.cli.tune.trials import Outcome, best
from cflightning.evaluation.plots import draw_search
from cflightning.utils.files import claim, replacing, write_csv

REPORT, CONFIG, TABLE, PICTURE = "tune.json", "best.yaml", "trials.csv", "history.svg"
REDRAW = 10.0
"""Seconds between pictures; drawing one takes as long as a small trial."""


def find_or_make(root: Path, fingerprint: str) -> Path:
    """The folder of the search with this fingerprint; a new `root/tune_N` if there is none."""
    for path in sorted(root.glob(f"tune_*/{REPORT}")):
        try:
            if json.loads(path.read_text(encoding="utf-8"))["fingerprint"] == fingerprint:
                return path.parent
        except (OSError, ValueError, TypeError, KeyError):  # another's file, or an edited one
            continue
    folder = claim(root, "tune")
    _write(folder / REPORT, json.dumps({"fingerprint": fingerprint}) + "\n")
    return folder


class Report:
    """Prints, and writes into the search's folder.

    Args:
        folder: of the search.
        fingerprint: of the search.
        facts: what is known beforehand.
        shared: what was asked for.
        options: of the command.
    """

    def __init__(self, folder: Path, fingerprint: str, facts: Facts, shared: Shared, options: Options) -> None:
        self.folder, self.fingerprint, self.facts, self.options = folder, fingerprint, facts, options
        self.ranges, self.goal = shared.ranges, shared.goal
        self.given_slice = "data.val_fraction" in shared.asked.given
        short = [name.rpartition(".")[2] for name in self.ranges]
        self.titles = {
            name: last if short.count(last) == 1 else name for name, last in zip(self.ranges, short, strict=True)
        }
        self._drawn = -math.inf

    def begin(self, done: Sequence[Outcome]) -> None:
        """Say what is searched, and by what."""
        train, val, test = self.facts.rows
        origin = "" if self.given_slice else f" (--data.val_fraction {VAL_FRACTION:g}, since none is given)"
        _tell(
            f"\n{self.facts.data}: {train:,} rows train, {val:,} validate{origin}, {test:,} for the test are left alone"
        )
        for name, one in self.ranges.items():
            _tell(f"  --{name}  {one}")
        if done:
            found = best(done, self.goal)
            least = f", {self.goal.title} {found.value:.4f} at best (trial {found.turn})" if found else ""
            _tell(f"{len(done)} of {max(self.options.trials, len(done))} trials are there already{least}")
        if len(done) < self.options.trials:
            cells = [f"{'trial':>5}", f"{self.goal.title:>8}", f"{'epochs':>6}", f"{'seconds':>7}"]
            _tell("\n" + "  ".join([*cells, *(f"{title:>{self._width(title)}}" for title in self.titles.values())]))

    def add(self, outcomes: Sequence[Outcome], turn: int) -> None:
        """Tell what a trial came to, and renew the files.

        Args:
            outcomes: all, by turn.
            turn: of the one that is new.
        """
        new = next(outcome for outcome in outcomes if outcome.turn == turn)
        first = best(outcomes, self.goal)
        notes = ["defaults"] * (turn == 0) + [new.note] * bool(new.note)
        notes += ["best so far"] * (first is not None and first.turn == turn and len(outcomes) > 1)
        value = f"{new.value:.4f}" if math.isfinite(new.value) else "-"
        cells = [f"{turn:>5}", f"{value:>{len(self.goal.title)}}", f"{new.epochs:>6}", f"{new.seconds:>7.1f}"]
        for name, title in self.titles.items():
            cells.append(f"{_text(new.drawn.get(name)):>{self._width(title)}}")
        _tell("  ".join([*cells, ", ".join(notes)]).rstrip())
        self.write(outcomes)

    def end(self, outcomes: Sequence[Outcome], stopped: bool = False) -> None:
        """Tell what came out, where it lies and what to type next."""
        if outcomes:
            self._drawn = -math.inf
            self.write(outcomes)
        if stopped:
            _tell(f"stopped after {len(outcomes)} trials; the same command goes on")
        found = best(outcomes, self.goal)
        if found is None:
            return
        _tell(f"\nbest      trial {found.turn}, {self.goal.title} {found.value:.4f}{self._gain(outcomes, found)}")
        if found.turn:
            _tell("          " + "  ".join(f"--{name} {_text(value)}" for name, value in found.drawn.items()))
        _tell("          chosen by this very slice, so rather too good: what it is worth, fit's test says")
        _tell(f"table     {_short(self.folder / TABLE)}")
        if (self.folder / PICTURE).is_file():
            _tell(f"picture   {_short(self.folder / PICTURE)}")
        _tell(f"config    {_short(self.folder / CONFIG)}")
        _tell(f"next      python -m cflightning fit --config {_short(self.folder / CONFIG)}")

    def write(self, outcomes: Sequence[Outcome]) -> None:
        """Renew all files."""
        found = best(outcomes, self.goal)
        columns: dict[str, list[Any]] = {
            "trial": [one.turn for one in outcomes],
            self.goal.column: [repr(one.value) if math.isfinite(one.value) else "" for one in outcomes],
            **{name: [getattr(one, name) for one in outcomes] for name in ("epochs", "best_epoch")},
            "seconds": [f"{one.seconds:.2f}" for one in outcomes],
            "note": ["defaults" if not one.turn and not one.note else one.note for one in outcomes],
        }
        for name in self.ranges:
            columns[name] = [_text(one.drawn.get(name), exact=True, missing="") for one in outcomes]
        write_csv(self.folder / TABLE, columns)
        content: dict[str, Any] = {
            "fingerprint": self.fingerprint,
            "data": self.facts.data,
            "rows": dict(zip(("train", "val"), self.facts.rows[:2], strict=True)),
            "ranges": {name: str(one) for name, one in self.ranges.items()},
            "trials": len(outcomes),
            "pruned": sum(one.note == "pruned" for one in outcomes),
        }
        if found is not None:
            content["best"] = {"trial": found.turn, self.goal.metric: found.value, "settings": found.settings}
            _write(self.folder / CONFIG, self._comment(outcomes, found) + dump(found.settings))
        _write(self.folder / REPORT, json.dumps(content, indent=2) + "\n")
        if time.monotonic() - self._drawn > REDRAW:
            self._draw(outcomes)
            self._drawn = time.monotonic()

    def _comment(self, outcomes: Sequence[Outcome], found: Outcome) -> str:
        lines = [
            f"The best of {len(outcomes)} trials by python -m cflightning tune (trial {found.turn}): {self.facts.data}",
            f"{self.goal.metric} {found.value:.4f} at epoch {found.best_epoch}{self._gain(outcomes, found)}.",
            f"Rather too good: it was chosen by that slice, {self.facts.rows[1]:,} rows. A test says what it is worth:",
            f"  python -m cflightning fit --config {_short(self.folder / CONFIG)}",
            "Searched were:",
        ]
        for name, one in self.ranges.items():
            value = _text(found.drawn.get(name), missing="fit's own")
            lines.append(f"  {name}: {value} of {one}{'' if found.turn else ', by default'}")
        return "".join(f"# {line}\n" for line in lines)

    def _gain(self, outcomes: Sequence[Outcome], found: Outcome) -> str:
        defaults = next((one for one in outcomes if one.turn == 0), None)
        if not found.turn:
            return ", the defaults: no other trial was better" if len(outcomes) > 1 else ", the defaults"
        if defaults is None or not defaults.complete:
            return ""
        return f", {self.goal.better(found.value, defaults.value):.4f} better than the defaults ({defaults.value:.4f})"

    def _draw(self, outcomes: Sequence[Outcome]) -> None:
        settings: dict[str, list[Any]] = {}
        for name, one in self.ranges.items():
            values = [outcome.drawn.get(name) for outcome in outcomes]
            if isinstance(one, Choices):
                values = [None if value is None else shown(value) for value in values]
            settings[self.titles[name]] = values
        draw_search(
            np.array([outcome.value for outcome in outcomes]),
            np.array([outcome.complete for outcome in outcomes]),
            settings,
            {self.titles[name] for name, one in self.ranges.items() if isinstance(one, Numbers) and one.log},
            self.folder / PICTURE,
            self.goal.title,
            self.goal.mode == "min",
        )

    @staticmethod
    def _width(title: str) -> int:
        return max(len(title), 7)


def _text(value: Any, exact: bool = False, missing: str = "-") -> str:
    if value is None:
        return missing
    if isinstance(value, str):
        return shown(value)
    return repr(value) if exact or isinstance(value, int) else f"{value:.4g}"


def _write(path: Path, text: str) -> None:
    with replacing(path) as out:
        out.write(text)


def _short(path: Path) -> str:
    return min(os.path.relpath(path), str(path), key=len)


def _tell(line: str) -> None:
    print(line, flush=True)
