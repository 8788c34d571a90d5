"""A watch over the processes of one training, so that a lost one is named instead of waited for."""

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
"""Environment variable: seconds without a sign of life after which a process counts as lost."""
LIMIT = 300.0
"""Its default."""
WARN = 30.0
"""Seconds of silence after which a warning is logged."""
GRACE = 4.0
"""Seconds that a process with an error of its own gets to end by it, and that a failed exchange waits for a culprit."""
DOUBT = 3
"""Beats of silence after which a process is taken for the reason of a failed exchange."""
BEAT = 1.0
"""Seconds between signs of life."""


class ProcessWatch(Callback):
    """Ends a training of several processes when one of them is lost, with a message that names its rank.

    Every process writes a counter into a store of rank 0 each second, by a thread of its own, so a process that is
    busy is not taken for lost. A process whose counter stands still (stopped, killed, its machine unreachable) is
    warned of after 30 seconds and ends the training after as many as CFLIGHTNING_RANK_TIMEOUT says, 300 by default.
    One that was killed is noticed at once by those that exchange something with it.
    """

    def __init__(self) -> None:
        self._watch: _Watch | None = None
        self._children: list[Popen[bytes]] = []

    def adopt(self, trainer: Trainer) -> None:
        """Take over the processes that this one has started.

        Lightning's own observer looks every five seconds for one that has ended, and kills this process before it could
        say why. An observer without processes ends.

        Args:
            trainer: whose processes have found each other.
        """
        started = getattr(trainer.strategy.launcher, "procs", [])
        self._children += [child for child in started if isinstance(child, Popen)]
        if self._children:
            started.clear()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin, once the processes have found each other."""
        if in_group() and self._watch is None:
            self._watch = _Watch(trainer, self._children)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Name the lost process where it is the reason for a failed exchange.

        Raises:
            ProcessError: in the place of the exception.
        """
        if isinstance(exception, KeyboardInterrupt) and self._children and trainer.strategy.launcher is not None:
            trainer.strategy.launcher.procs = self._children  # type: ignore[attr-defined]  # Lightning ends them
        watch, self._watch = self._watch, None
        if watch is None:
            return
        own = isinstance(exception, CFLightningError) or not isinstance(exception, RuntimeError)
        if own:
            watch.fail(exception)
            return
        found = watch.find_lost(GRACE)
        if found is None:
            watch.fail(exception)
            return
        error = ProcessError(found)
        error.reported = not watch.speaks
        watch.close()
        watch.end_children()
        raise error from None

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """End."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()


class _Watch:
    """The thread of one process; what it writes for its rank is a counter, `done`, or `failed:` and the reason."""

    def __init__(self, trainer: Trainer, children: list[Popen[bytes]]) -> None:
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()
        self.children = children  # of rank 0, on its machine
        self.limit = find_limit()
        self.silent = [0] * self.size  # beats of this process since the last sign of each
        self.seen: list[bytes] = [b""] * self.size
        self.unreachable = 0  # beats in a row without an answer of the store
        self._stop = threading.Event()
        self._looked = threading.Event()
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
    def speaks(self) -> bool:
        """Whether this is the first of the processes that are alive."""
        return all(self._gone(rank) or self._silent(rank, DOUBT) for rank in range(self.rank))

    def fail(self, error: BaseException) -> None:
        """Tell the others why this process ends."""
        text = str(error) if isinstance(error, CFLightningError) else f"{type(error).__name__}: {error}"
        self.close(b"failed:" + " ".join(text.split())[:200].encode())

    def close(self, last: bytes = b"done") -> None:
        """End the thread; the store stays, since others may still write into it."""
        self._stop.set()
        self._thread.join(2 * BEAT)
        try:
            self.store.set(str(self.rank), last)
        except RuntimeError:
            log.debug("the watch of rank 0 has ended before that of rank %d", self.rank)
        _kept.append(self.store)

    def find_lost(self, seconds: float) -> str | None:
        """Return the lost process and the reason, in words; None while all were heard within the limit."""
        for _ in range(int(seconds / BEAT)):
            if (found := self._first(self._gone)) or (found := self._first(lambda rank: self._silent(rank, DOUBT))):
                return found
            self._looked.clear()
            self._looked.wait(2 * BEAT)
        return None

    def _first(self, state: Callable[[int], str | None]) -> str | None:
        found = ((rank, state(rank)) for rank in range(self.size) if rank != self.rank)
        return next((f"rank {rank}: {text}" for rank, text in found if text), None)

    def _gone(self, rank: int) -> str | None:
        """How a process has certainly ended, if it has."""
        if self.seen[rank].startswith(b"failed:"):
            return f"has failed: {self.seen[rank][7:].decode(errors='replace')}"
        if 0 < rank <= len(self.children) and (code := self.children[rank - 1].poll()):
            how = f"was killed by signal {-code}" if code < 0 else f"has ended with status {code}"
            return f"{how}; --ckpt_path last goes on from the last epoch"
        if rank == 0 and self.unreachable >= DOUBT:
            return "cannot be reached any more; --ckpt_path last goes on from the last epoch"
        return None

    def _silent(self, rank: int, beats: float) -> str | None:
        if self.seen[rank] == b"done" or self.silent[rank] < beats:
            return None
        return (
            f"has given no sign of life for {self.silent[rank] * BEAT:.0f} s (stopped, killed, or out of reach); "
            f"--ckpt_path last goes on from the last epoch, {LIMIT_VARIABLE} sets how long a process may be silent"
        )

    def _run(self) -> None:
        number, gone_for = 0, 0
        names = [str(rank) for rank in range(self.size)]
        while not self._stop.wait(BEAT):
            number += 1
            found = self.seen
            try:
                self.store.set(names[self.rank], str(number))
                found = self.store.multi_get(names)
                self.unreachable = 0
            except RuntimeError:
                self.unreachable += 1
            self.silent = [
                beats + 1 if value == before else 0
                for beats, value, before in zip(self.silent, found, self.seen, strict=True)
            ]
            self.seen = list(found)
            self._looked.set()
            self._warn()
            # The main thread ends by an error of its own, unless it waits where nothing can interrupt it.
            gone = self._first(self._gone)
            gone_for = gone_for + 1 if gone else 0
            late = self._first(lambda rank: self._silent(rank, self.limit / BEAT))
            if late or gone_for * BEAT > GRACE:
                self._end(str(late or gone))

    def _warn(self) -> None:
        for rank, beats in enumerate(self.silent):
            if beats == int(WARN / BEAT) < self.limit / BEAT and self._silent(rank, beats):
                log.warning("rank %d: has given no sign of life for %.0f s (stopped, or out of reach?); the training "
                            "ends after %.0f s", rank, beats * BEAT, self.limit)  # fmt: skip

    def _end(self, lost: str) -> None:
        """End this process, whose main thread waits in an exchange that nothing else can interrupt."""
        if self._stop.is_set():
            return
        if self.speaks:
            print(f"cflightning: {lost}", file=sys.stderr, flush=True)
        self.end_children()
        os._exit(1)

    def end_children(self) -> None:
        """End what this process has started; a stopped process would stay for ever."""
        for child in self.children:
            if child.poll() is None:
                child.send_signal(signal.SIGKILL)


_kept: list[Any] = []
"""Stores of watches that have ended; they live as long as the process, since the others may end later."""


def find_limit() -> float:
    """Seconds without a sign of life after which a process counts as lost.

    Raises:
        ConfigError: the environment variable holds no number above 0.
    """
    given = os.environ.get(LIMIT_VARIABLE)
    try:
        limit = LIMIT if given is None else float(given)
    except ValueError:
        limit = 0.0
    if not limit > 0:
        raise ConfigError(f"{LIMIT_VARIABLE}: must be a number of seconds above 0, got {str(given)[:40]!r}")
    return limit
