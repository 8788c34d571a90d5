"""The processes of a search with `--jobs`."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

import torch

from cflightning.cli.stopping import stop_status, stoppable
from cflightning.cli.tune.goals import Goal
from cflightning.cli.tune.parse import ParsedArgs
from cflightning.cli.tune.quiet import quiet_library, quiet_lightning
from cflightning.cli.tune.ranges import Range
from cflightning.cli.tune.run_trial import run_trial
from cflightning.cli.tune.trial_cli import SearchState
from cflightning.cli.tune.trials import Trials
from cflightning.errors import TrainingError


def run_trials_in_processes(
    numbers: Iterator[int], state: SearchState, folder: Path, seed: int, jobs: int
) -> Iterator[int]:
    """Run trials in several processes.

    Each process gets its next number through a pipe, and adds the outcome to the journal itself. A worker ends when its
    pipe is closed, so a killed parent leaves none behind.

    Args:
        numbers: Numbers of the trials.
        state: State of the search.
        folder: Folder of the search.
        seed: Seed of the search.
        jobs: Number of processes.

    Yields:
        The number of each trial when it is finished.

    Raises:
        TrainingError: A process ended with an error.
    """
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    threads = max(torch.get_num_threads() // jobs, 1)
    workers: dict[Connection, SpawnProcess] = {}
    # Ctrl+C reaches all processes of a terminal; the parent handles it.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for _ in range(jobs):
            ours, theirs = context.Pipe()
            args = theirs, state.args, state.ranges, state.goal, folder, seed, threads
            worker = context.Process(target=work, args=args)
            worker.start()
            theirs.close()
            workers[ours] = worker
    finally:
        signal.signal(signal.SIGINT, handler)
    try:
        for pipe in [*workers]:
            with contextlib.suppress(BrokenPipeError):  # a dead worker is reported below
                pipe.send(next(numbers, None))
        while workers:
            for pipe in [pipe for pipe in wait([*workers]) if isinstance(pipe, Connection)]:
                try:
                    number = pipe.recv()
                except EOFError:
                    worker = workers.pop(pipe)
                    worker.join()
                    if worker.exitcode:
                        raise TrainingError(
                            f"tune: process {worker.pid} must end with 0, but ended with {worker.exitcode}; its error "
                            "is above, and the same command continues the search"
                        ) from None
                    continue
                with contextlib.suppress(BrokenPipeError):
                    pipe.send(next(numbers, None))
                yield number
    finally:
        for worker in workers.values():
            worker.kill()  # its trial is discarded; journal and locks allow that
            worker.join()


def work(
    pipe: Connection, args: ParsedArgs, ranges: dict[str, Range], goal: Goal, folder: Path, seed: int, threads: int
) -> None:
    """Run trials until the parent sends None.

    Args:
        pipe: Connection to the parent.
        args: Arguments of the user.
        ranges: Option -> range.
        goal: Goal of the search.
        folder: Folder of the search.
        seed: Seed of the search.
        threads: Number of torch's threads.
    """
    torch.set_num_threads(threads)
    parent = multiprocessing.parent_process()
    state, trials = SearchState(args, ranges, goal), Trials(folder, ranges, seed, goal)
    try:
        # The pipe breaks when the parent is gone.
        with quiet_lightning(), quiet_library(), stoppable(), contextlib.suppress(EOFError, BrokenPipeError):
            while (number := pipe.recv()) is not None:
                run_trial(number, state, trials, folder, parent.is_alive if parent is not None else lambda: True)
                pipe.send(number)
    except KeyboardInterrupt as error:
        sys.exit(stop_status(error))
