"""The end of a command by a signal, Ctrl+C or SIGTERM."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM
"""Exit statuses by the convention of shells."""


class Stopped(KeyboardInterrupt):
    """A signal stopped the command.

    Args:
        status: Exit status of the process.
        line: Message to the user; empty in processes that print nothing.
    """

    def __init__(self, status: int, line: str = "stopped") -> None:
        super().__init__(status, line)  # both, so that it can be pickled
        self.status, self.line = status, line


@contextmanager
def stoppable() -> Iterator[None]:
    """Handle SIGTERM inside like Ctrl+C: stop at once, with a chance to clean up."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(TERMINATED)

    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield  # the handler of another program
        return
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def stop_status(error: BaseException) -> int | None:
    """Return the exit status for an exception that a signal raised; None for any other.

    Args:
        error: An exception; Lightning turns a KeyboardInterrupt into a `SystemExit` with that context.
    """
    cause = error.__context__ if isinstance(error, SystemExit) else error
    if isinstance(cause, Stopped):
        return cause.status
    return INTERRUPTED if isinstance(cause, KeyboardInterrupt) else None
