"""The search: trial after trial, in this process or in several."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from cflightning.cli.run_folders import sweep_runs, sweep_trials
from cflightning.cli.stopping import INTERRUPTED, stop_status, stoppable
from cflightning.cli.tune.fits import Shared, run
from cflightning.cli.tune.goals import Goal
from cflightning.cli.tune.journal import repair
from cflightning.cli.tune.options import Options
from cflightning.cli.tune.parse import Asked, read
from cflightning.cli.tune.probe import probe
from cflightning.cli.tune.ranges import Range
from cflightning.cli.tune.report import Report, find_or_make
from cflightning.cli.tune.trials import JOURNAL, Outcome, Trials, best
from cflightning.errors import CFLightningError, StorageError, TrainingError
from cflightning.utils.files import make_folder
from cflightning.utils.locks import LOCK, alone_in, waiting_for

FAILURES = (CFLightningError, MisconfigurationException, MemoryError, torch.OutOfMemoryError)
"""What can be the drawn values' fault, and ends a trial but not the search."""


def run_search(args: list[str], options: Options, started: float | None = None) -> int:
    """Search for the settings with the best figure of the validation slice; print a line a trial, and what came out.

    Args:
        args: Options of `fit`; any value may be a range.
        options: of the command itself.
        started: `time.perf_counter()` when the process began.

    Returns:
        Exit status: 0, or 130 where Ctrl+C, 143 where SIGTERM ended the search.

    Raises:
        ConfigError: options or ranges that make no search, or another process works on the same one.
        TrainingError: no trial came to its end.
    """
    began = time.monotonic()
    shared = Shared(read(args))
    with _quiet() as quieter:
        facts = probe(shared, started)
        fingerprint = f"{facts.fingerprint}-{options.seed}"
        with ExitStack() as held:
            folder = open_search(facts.root, fingerprint, held)
            trials = Trials(folder, shared.ranges, options.seed, shared.goal)
            trials.give_up_running()
            report = Report(folder, fingerprint, facts, shared, options)
            status = 0
            try:
                _search(shared, trials, report, options, lambda: time.monotonic() - began, quieter)
            except KeyboardInterrupt as error:
                signal.signal(signal.SIGINT, signal.default_int_handler)  # Lightning has it ignored
                trials.give_up_running()
                status = stop_status(error) or INTERRUPTED
            outcomes = trials.outcomes()
            report.end(outcomes, stopped=bool(status))
    if not status and best(outcomes, shared.goal) is None:
        raise TrainingError(
            "tune: a trial must come to its end, but none has; lower --model.learning_rate or its range"
        )
    return status


def _search(
    shared: Shared,
    trials: Trials,
    report: Report,
    options: Options,
    clock: Callable[[], float],
    quieter: Callable[[], None],
) -> None:
    """Take all turns that are left."""
    done = trials.outcomes()
    taken = {outcome.turn for outcome in done}
    turns = [turn for turn in range(options.trials) if turn not in taken]
    report.begin(done)

    def left() -> Iterator[int]:
        for turn in turns:
            if turn and options.seconds is not None and clock() > options.seconds:
                return
            yield turn

    remaining = left()
    if turns[:1] == [0]:
        outcome = Outcome(next(remaining))
        run(shared, outcome, report.folder, lambda *_: False)
        trials.add_defaults(outcome)
        report.add(trials.outcomes(), outcome.turn)
    quieter()
    if options.jobs > 1 and len(turns) > 1:
        for turn in _share_out(shared, report.folder, options, remaining):
            report.add(trials.outcomes(), turn)
    else:
        for turn in remaining:
            take(turn, shared, trials, report.folder)
            report.add(trials.outcomes(), turn)


def take(turn: int, shared: Shared, trials: Trials, scratch: Path, alive: Callable[[], bool] = lambda: True) -> None:
    """Draw, fit and keep a trial.

    Args:
        turn: its number in the search.
        shared: by all fits of the process.
        trials: of the search.
        scratch: where folders can be made that go again.
        alive: whether anybody is still interested.
    """
    trial = trials.draw(turn)
    outcome = trial.outcome
    twin = trial.twin()
    if twin is not None:
        outcome.value, outcome.epochs, outcome.best_epoch = twin.value, twin.epochs, twin.best_epoch
        outcome.settings, outcome.note = twin.settings, twin.note or f"as trial {twin.turn}"
        trial.finish(outcome)
        return

    def worse(stage: int, value: float) -> bool:
        if not alive():
            raise SystemExit(1)
        return trial.worse(stage, value)

    try:
        run(shared, outcome, scratch, worse)
    except StorageError:  # no fault of the values
        trial.give_up()
        raise
    except FAILURES as error:
        outcome.note = f"failed: {' '.join(str(error).split())}"
    except BaseException:
        trial.give_up()
        raise
    trial.finish(outcome)


# Several processes -----------------------------------------------------------------------------------------------


def _share_out(shared: Shared, folder: Path, options: Options, turns: Iterator[int]) -> Iterator[int]:
    """Let processes take the turns; yields each when it is over.

    Each process is told its next turn through a pipe, and works on the journal by itself. The end of the pipe is the
    end of its work, so none is left behind by a parent that was killed.
    """
    context = multiprocessing.get_context("spawn")  # threads of torch do not survive a fork
    threads = max(torch.get_num_threads() // options.jobs, 1)
    workers: dict[Connection, Any] = {}
    # Ctrl-C reaches all processes of a terminal; it is the parent's to deal with.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for _ in range(options.jobs):
            ours, theirs = context.Pipe()
            job = theirs, shared.asked, shared.ranges, shared.goal, folder, options.seed, threads
            worker = context.Process(target=work, args=job)
            worker.start()
            theirs.close()
            workers[ours] = worker
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        for pipe in [*workers]:
            with contextlib.suppress(BrokenPipeError):  # asked below why it is gone
                pipe.send(next(turns, None))
        while workers:
            for pipe in [pipe for pipe in wait([*workers]) if isinstance(pipe, Connection)]:
                try:
                    turn = pipe.recv()
                except EOFError:
                    worker = workers.pop(pipe)
                    worker.join()
                    if worker.exitcode:
                        raise TrainingError(
                            f"tune: process {worker.pid} must end well, but ended with {worker.exitcode}; what it says "
                            "stands above, and the same command goes on with the search"
                        ) from None
                    continue
                with contextlib.suppress(BrokenPipeError):
                    pipe.send(next(turns, None))
                yield turn
    finally:
        for worker in workers.values():
            worker.kill()  # what it was at is given up; journal and locks bear it
            worker.join()


def work(
    pipe: Connection, asked: Asked, ranges: dict[str, Range], goal: Goal, folder: Path, seed: int, threads: int
) -> None:
    """A process of the search: takes turns until it is told None.

    Args:
        pipe: to the parent.
        asked: by the user.
        ranges: option -> range.
        goal: of the search.
        folder: of the search.
        seed: of the search.
        threads: of torch.
    """
    torch.set_num_threads(threads)
    parent = multiprocessing.parent_process()
    shared, trials = Shared(asked, ranges, goal), Trials(folder, ranges, seed, goal)
    try:
        with _quiet() as quieter, stoppable():
            quieter()
            with contextlib.suppress(EOFError, BrokenPipeError):  # the parent is gone
                while (turn := pipe.recv()) is not None:
                    take(turn, shared, trials, folder, parent.is_alive if parent is not None else lambda: True)
                    pipe.send(turn)
    except KeyboardInterrupt as error:
        sys.exit(stop_status(error))


# Around it -------------------------------------------------------------------------------------------------------


def open_search(root: Path, fingerprint: str, held: ExitStack) -> Path:
    """Find or make the folder of a search, and lock it.

    Args:
        root: where searches lie.
        fingerprint: of the search.
        held: keeps the lock.

    Raises:
        ConfigError: another process works on it.
    """
    make_folder(root)
    sweep_runs(root)
    with waiting_for(root / LOCK):  # two commands at once must not make two searches of one
        folder = find_or_make(root, fingerprint)
        held.enter_context(alone_in(folder, ", or stop it and give --jobs"))
    sweep_trials(folder)
    repair(folder / JOURNAL)
    return folder


@contextlib.contextmanager
def _quiet() -> Iterator[Callable[[], None]]:
    """Lightning's own lines are left out; from when the yielded function is called, the library's as well."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels, disabled = [logger.level for logger in loggers], logging.root.manager.disable
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield lambda: logging.disable(logging.INFO)
    finally:
        logging.disable(disabled)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
