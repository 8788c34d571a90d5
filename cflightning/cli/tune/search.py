"""The search: its folder, its trials one after the other, and its end."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from cflightning.cli.run_folders import sweep_runs, sweep_trials
from cflightning.cli.stopping import INTERRUPTED, stop_status
from cflightning.cli.tune.journal import repair
from cflightning.cli.tune.options import Options
from cflightning.cli.tune.parse import parse_ranges
from cflightning.cli.tune.probe import describe_search
from cflightning.cli.tune.quiet import quiet_library, quiet_lightning
from cflightning.cli.tune.report import Report, find_or_make
from cflightning.cli.tune.run_trial import run_default_trial, run_trial
from cflightning.cli.tune.trial_cli import SearchState
from cflightning.cli.tune.trials import JOURNAL, Trials, best_trial
from cflightning.cli.tune.workers import run_trials_in_processes
from cflightning.errors import TrainingError
from cflightning.utils.files import make_folder
from cflightning.utils.locks import LOCK, lock_folder, wait_for_lock


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
    state = SearchState(parse_ranges(args))
    with quiet_lightning(), ExitStack() as locks:
        description = describe_search(state, started)
        fingerprint = f"{description.fingerprint}-{options.seed}"
        folder = open_search(description.root, fingerprint, locks)
        trials = Trials(folder, state.ranges, options.seed, state.goal)
        trials.discard_running()
        report = Report(folder, fingerprint, description, state, options)
        status = 0
        try:
            _run_trials(state, trials, report, options, began)
        except KeyboardInterrupt as error:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # Lightning ignores the signal from then on
            trials.discard_running()
            status = stop_status(error) or INTERRUPTED
        outcomes = trials.outcomes()
        report.end(outcomes, stopped=bool(status))
    if not status and best_trial(outcomes, state.goal) is None:
        raise TrainingError("tune: one trial must be complete, but none is; lower --model.learning_rate or its range")
    return status


def _run_trials(state: SearchState, trials: Trials, report: Report, options: Options, began: float) -> None:
    """Run the trials that the search does not have yet."""
    finished = trials.outcomes()
    missing = sorted(set(range(options.trials)) - {outcome.number for outcome in finished})
    report.begin(finished)

    def in_time() -> Iterator[int]:
        for number in missing:
            if number and options.seconds is not None and time.monotonic() - began > options.seconds:
                return
            yield number

    numbers = in_time()
    if missing[:1] == [0]:
        run_default_trial(next(numbers), state, trials, report.folder)
        report.add(trials.outcomes(), 0)
    with quiet_library():
        if options.jobs > 1 and len(missing) > 1:
            for number in run_trials_in_processes(numbers, state, report.folder, options.seed, options.jobs):
                report.add(trials.outcomes(), number)
        else:
            for number in numbers:
                run_trial(number, state, trials, report.folder)
                report.add(trials.outcomes(), number)


def open_search(root: Path, fingerprint: str, locks: ExitStack) -> Path:
    """Find or make the folder of a search, and lock it.

    Args:
        root: Folder of the runs.
        fingerprint: Digest of the search.
        locks: Holds the lock.

    Raises:
        ConfigError: Another process works on the search.
    """
    make_folder(root)
    sweep_runs(root)
    with wait_for_lock(root / LOCK):  # two commands at once must not make two folders
        folder = find_or_make(root, fingerprint)
        locks.enter_context(lock_folder(folder, ", or stop it and give --jobs"))
    sweep_trials(folder)
    repair(folder / JOURNAL)
    return folder
