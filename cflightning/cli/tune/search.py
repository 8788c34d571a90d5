"""The search: its folder, its trials one after the other, and its end."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack

from cflightning.cli.stopping import INTERRUPTED, stop_status
from cflightning.cli.studies import open_study
from cflightning.cli.tune.journal import repair
from cflightning.cli.tune.options import Options
from cflightning.cli.tune.parse import parse_ranges
from cflightning.cli.tune.probe import probe_search
from cflightning.cli.tune.report import REPORT, Report
from cflightning.cli.tune.run_trial import run_default_trial, run_trial
from cflightning.cli.tune.trial_cli import SearchState
from cflightning.cli.tune.trials import JOURNAL, Trials
from cflightning.cli.tune.workers import run_trials_in_processes
from cflightning.errors import TrainingError


def run_search(args: list[str], options: Options, started: float) -> int:
    """Search for the settings with the best validation metric; print a line for each trial, and the best one.

    Args:
        args: Options of `fit`, in which values can be ranges.
        options: The other options.
        started: `time.perf_counter()` at the start of the process.

    Returns:
        Exit status: 0; 130 if Ctrl+C, 143 if SIGTERM ended the search.

    Raises:
        ConfigError: The options or ranges make no search, or another process works on the same one.
        TrainingError: No trial is complete.
    """
    began = time.monotonic()
    parsed = parse_ranges(args)
    state = SearchState(parsed, parsed.ranges)
    with ExitStack() as stack:
        root, fingerprint = probe_search(state, options.seed, started)
        folder = open_study(root, REPORT, fingerprint, stack, advice=", or stop it and give --jobs")
        repair(folder / JOURNAL)
        trials = Trials(folder, state.ranges, options.seed, state.goal)
        trials.discard_running()
        report = Report(trials, fingerprint, state, options.trials)
        stack.callback(logging.disable, logging.root.manager.disable)
        status = 0
        try:
            _run_trials(state, trials, report, options, began)
        except KeyboardInterrupt as error:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # Lightning ignores the signal from then on
            status = stop_status(error) or INTERRUPTED
        best = report.end(stopped=bool(status))
    if not status and best is None:
        raise TrainingError("tune: one trial must be complete, but none is; lower --model.learning_rate or its range")
    return status


def _run_trials(state: SearchState, trials: Trials, report: Report, options: Options, began: float) -> None:
    """Run the trials that the search does not have yet."""
    missing = sorted(set(range(options.trials)) - {outcome.number for outcome in trials.outcomes()})
    report.begin()
    if missing[:1] == [0]:
        run_default_trial(state, trials)
        report.add(missing.pop(0))
    logging.disable(logging.INFO)  # lines that every trial would repeat

    def in_time() -> Iterator[int]:
        for number in missing:
            if options.seconds is not None and time.monotonic() - began > options.seconds:
                return
            yield number

    if options.jobs > 1 and len(missing) > 1:
        for number in run_trials_in_processes(in_time(), state, trials, options.jobs):
            report.add(number)
    else:
        for number in in_time():
            run_trial(number, state, trials)
            report.add(number)
