"""Watch over the processes of a training run, which names a lost process instead of waiting for it."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from subprocess import Popen
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import distributed

from cflightning.errors import CFLightningError, ConfigError, ProcessError
from cflightning.utils.distributed import in_group

log = logging.getLogger(__name__)

LIMIT_VARIABLE = "CFLIGHTNING_RANK_TIMEOUT"
"""Environment variable: seconds without a heartbeat after which a process counts as lost."""
DEFAULT_LIMIT = 300.0
"""Default of the environment variable, in seconds."""
WARN_AFTER = 30.0
"""Seconds without a heartbeat after which a warning is logged."""
GRACE = 4.0
"""Seconds that a process has to end by an error of its own, and that a failed collective waits for its cause."""
SUSPECT_BEATS = 3
"""Missed heartbeats after which a process counts as the cause of a failed collective."""
BEAT = 1.0
"""Seconds between heartbeats."""


class ProcessWatch(Callback):
    """Ends a training run of several processes when one of them is lost, with a message that names its rank.

    A thread of every process writes a counter into a store of rank 0 each second, so a busy process does not count as
    lost. If a counter stops (the process is stopped or killed, or its machine is unreachable), a warning is logged
    after 30 seconds, and training ends after CFLIGHTNING_RANK_TIMEOUT seconds, 300 by default. Processes that are in a
    collective with a killed process notice it at once.
    """

    def __init__(self) -> None:
        self._watch: _Watch | None = None
        self._children: list[Popen[bytes]] = []

    def adopt(self, trainer: Trainer) -> None:
        """Take over the child processes of this process.

        Lightning's own observer checks every five seconds whether one has ended, and kills this process before it can
        name the cause. An observer without processes ends.

        Args:
            trainer: Trainer whose processes are connected.
        """
        started = getattr(trainer.strategy.launcher, "procs", [])
        self._children += [child for child in started if isinstance(child, Popen)]
        if self._children:
            started.clear()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start the watch once the processes are connected."""
        if in_group() and self._watch is None:
            self._watch = _Watch(trainer, self._children)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Name the lost process if it is the cause of a failed collective.

        Raises:
            ProcessError: Replaces the exception.
        """
        if isinstance(exception, KeyboardInterrupt) and self._children and trainer.strategy.launcher is not None:
            trainer.strategy.launcher.procs = self._children  # type: ignore[attr-defined]  # Lightning ends them
        watch, self._watch = self._watch, None
        if watch is None:
            return
        is_own = isinstance(exception, CFLightningError) or not isinstance(exception, RuntimeError)
        lost = None if is_own else watch.find_lost(GRACE)
        if lost is None:
            watch.fail(exception)
            return
        error = ProcessError(lost)
        error.reported = not watch.reports
        watch.close()
        watch.end_children()
        raise error from None

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """End the watch."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()


class _Watch:
    """The watching thread of one process. For its rank it writes a counter, `done`, or `failed:` and the cause."""

    def __init__(self, trainer: Trainer, children: list[Popen[bytes]]) -> None:
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()
        self.children = children  # child processes of rank 0 on its machine
        self.limit = find_limit()
        self.missed_beats = [0] * self.size  # heartbeats of this process since the last one of each rank
        self.seen: list[bytes] = [b""] * self.size
        self.unreachable = 0  # consecutive heartbeats without a response of the store
        self._stop = threading.Event()
        self._checked = threading.Event()
        self.store = self._connect(trainer)
        self.store.set(str(self.rank), "0")
        trainer.strategy.barrier("watch")  # every process has written
        self._thread = threading.Thread(target=self._run, name="cflightning-watch", daemon=True)
        self._thread.start()

    def _connect(self, trainer: Trainer) -> Any:
        from torch.distributed import TCPStore  # type: ignore[attr-defined]  # documented, but not in its stub

        host, wait = os.environ.get("MASTER_ADDR", "127.0.0.1"), timedelta(seconds=10)
        own = TCPStore(host, 0, self.size, True, wait, wait_for_workers=False) if self.rank == 0 else None
        port = trainer.strategy.broadcast(0 if own is None else own.port)
        return own or TCPStore(host, port, self.size, False, wait)

    @property
    def reports(self) -> bool:
        """True if this is the first living process, which reports for all."""
        return all(
            self._describe_ended(rank) or self._describe_silent(rank, SUSPECT_BEATS) for rank in range(self.rank)
        )

    def fail(self, error: BaseException) -> None:
        """Store the cause by which this process ends."""
        text = str(error) if isinstance(error, CFLightningError) else f"{type(error).__name__}: {error}"
        self.close(b"failed:" + " ".join(text.split())[:200].encode())

    def close(self, last: bytes = b"done") -> None:
        """End the thread; the store stays open, as other processes may still write into it."""
        self._stop.set()
        self._thread.join(2 * BEAT)
        try:
            self.store.set(str(self.rank), last)
        except RuntimeError:
            log.debug("the watch of rank 0 has ended before that of rank %d", self.rank)
        _ended_stores.append(self.store)

    def find_lost(self, seconds: float) -> str | None:
        """Return the rank and the state of a lost process as text, or None if all are alive after some seconds."""
        for _ in range(int(seconds / BEAT)):
            if (lost := self._first_lost(self._describe_ended)) or (
                lost := self._first_lost(lambda rank: self._describe_silent(rank, SUSPECT_BEATS))
            ):
                return lost
            self._checked.clear()
            self._checked.wait(2 * BEAT)
        return None

    def _first_lost(self, describe: Callable[[int], str | None]) -> str | None:
        states = ((rank, describe(rank)) for rank in range(self.size) if rank != self.rank)
        return next((f"rank {rank}: {state}" for rank, state in states if state), None)

    def _describe_ended(self, rank: int) -> str | None:
        """Return how a process has ended, or None if it may be alive."""
        if self.seen[rank].startswith(b"failed:"):
            return f"has failed: {self.seen[rank][7:].decode(errors='replace')}"
        if 0 < rank <= len(self.children) and (code := self.children[rank - 1].poll()):
            how = f"was killed by signal {-code}" if code < 0 else f"has ended with status {code}"
            return f"{how}; --ckpt_path last resumes from the last epoch"
        if rank == 0 and self.unreachable >= SUSPECT_BEATS:
            return "is unreachable; --ckpt_path last resumes from the last epoch"
        return None

    def _describe_silent(self, rank: int, beats: float) -> str | None:
        if self.seen[rank] == b"done" or self.missed_beats[rank] < beats:
            return None
        return (
            f"has sent no heartbeat for {self.missed_beats[rank] * BEAT:.0f} s (stopped, killed, or unreachable); "
            f"--ckpt_path last resumes from the last epoch, {LIMIT_VARIABLE} sets the time limit"
        )

    def _run(self) -> None:
        number, gone_for = 0, 0
        names = [str(rank) for rank in range(self.size)]
        while not self._stop.wait(BEAT):
            number += 1
            values = self.seen
            try:
                self.store.set(names[self.rank], str(number))
                values = self.store.multi_get(names)
                self.unreachable = 0
            except RuntimeError:
                self.unreachable += 1
            self.missed_beats = [
                beats + 1 if value == before else 0
                for beats, value, before in zip(self.missed_beats, values, self.seen, strict=True)
            ]
            self.seen = list(values)
            self._checked.set()
            self._warn()
            # The main thread ends by its own error unless it waits in a collective that cannot be interrupted.
            gone = self._first_lost(self._describe_ended)
            gone_for = gone_for + 1 if gone else 0
            late = self._first_lost(lambda rank: self._describe_silent(rank, self.limit / BEAT))
            if late or gone_for * BEAT > GRACE:
                self._end(str(late or gone))

    def _warn(self) -> None:
        for rank, beats in enumerate(self.missed_beats):
            if beats == int(WARN_AFTER / BEAT) < self.limit / BEAT and self._describe_silent(rank, beats):
                log.warning("rank %d: has sent no heartbeat for %.0f s (stopped or unreachable?); the training "
                            "ends after %.0f s", rank, beats * BEAT, self.limit)  # fmt: skip

    def _end(self, lost: str) -> None:
        """End this process, whose main thread waits in a collective that nothing else can interrupt."""
        if self._stop.is_set():
            return
        if self.reports:
            print(f"cflightning: {lost}", file=sys.stderr, flush=True)
        self.end_children()
        os._exit(1)

    def end_children(self) -> None:
        """Kill the child processes; a stopped one would never end by itself."""
        for child in self.children:
            if child.poll() is None:
                child.send_signal(signal.SIGKILL)


_ended_stores: list[Any] = []
"""Stores of ended watches, kept open until the process ends, as other processes may end later."""


def find_limit() -> float:
    """Return the seconds without a heartbeat after which a process counts as lost.

    Raises:
        ConfigError: The environment variable is not a number above 0.
    """
    given = os.environ.get(LIMIT_VARIABLE)
    try:
        limit = DEFAULT_LIMIT if given is None else float(given)
    except ValueError:
        limit = 0.0
    if not limit > 0:
        raise ConfigError(f"{LIMIT_VARIABLE}: must be a number of seconds above 0, got {str(given)[:40]!r}")
    return limit
