"""The processes of a search with `--jobs`."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch

from cflightning.cli.stopping import stoppable
from cflightning.cli.tune.run_trial import run_trial
from cflightning.cli.tune.trial_cli import SearchState
from cflightning.cli.tune.trials import Trials
from cflightning.errors import TrainingError

_search: tuple[SearchState, Trials]
"""The search of a worker process, in which `_start_worker` sets it."""


def run_trials_in_processes(numbers: Iterator[int], state: SearchState, trials: Trials, jobs: int) -> Iterator[int]:
    """Run trials in several processes, which add the outcomes to the journal.

    Args:
        numbers: Numbers of the trials.
        state: State of the search.
        trials: Trials of the search.
        jobs: Number of processes.

    Yields:
        The number of each trial when it is finished.

    Raises:
        TrainingError: A process was killed.
    """
    threads = max(torch.get_num_threads() // jobs, 1)
    args = replace(state, table=None, split=None), trials.folder, trials.seed, threads
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    pool = ProcessPoolExecutor(jobs, context, _start_worker, args)
    try:
        # Ctrl+C reaches all processes of a terminal; the parent handles it.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            running: set[Future[int]] = {pool.submit(_run_trial, number) for number in islice(numbers, jobs)}
        finally:
            signal.signal(signal.SIGINT, handler)
        while running:
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            running |= {pool.submit(_run_trial, number) for number in islice(numbers, len(finished))}
            for future in finished:
                yield future.result()
    except BrokenProcessPool as error:
        raise TrainingError(
            "tune: every process must live until its end, but one was killed, perhaps for lack of memory; the same "
            "command continues the search, if needed with fewer --jobs"
        ) from error
    finally:
        for process in multiprocessing.active_children():
            process.kill()  # its trial is discarded; journal and locks allow that
        pool.shutdown()


def _start_worker(state: SearchState, folder: Path, seed: int, threads: int) -> None:
    """Prepare a worker process, which ends as soon as its parent is gone."""
    global _search
    logging.disable(logging.INFO)
    torch.set_num_threads(threads)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    _search = state, Trials(folder, state.ranges, seed, state.goal)


def _exit_with_parent() -> None:
    """Wait for the end of the parent process, and end this one."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _run_trial(number: int) -> int:
    """Run a trial in a worker process."""
    with stoppable():
        run_trial(number, *_search)
    return number
