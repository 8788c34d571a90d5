"""The end of a command by a signal: Ctrl+C and SIGTERM alike."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM
"""Exit statuses, as shells know them."""


class Stopped(KeyboardInterrupt):
    """The command was stopped by a signal.

    Args:
        status: exit status of the process.
        line: message to the user; empty in processes that say nothing.
    """

    def __init__(self, status: int, line: str = "stopped") -> None:
        super().__init__(line)
        self.status, self.line = status, line


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM end what runs inside as Ctrl+C does: at once, and with a chance to clean up."""

    def stop(number: int, frame: Any) -> None:
        raise Stopped(TERMINATED)

    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield  # somebody else has a use for the signal
        return
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def stop_status(error: BaseException) -> int | None:
    """Exit status for an exception that a signal has raised; None for any other.

    Args:
        error: also the `SystemExit` that Lightning makes of a KeyboardInterrupt.
    """
    cause = error.__context__ if isinstance(error, SystemExit) else error
    if isinstance(cause, Stopped):
        return cause.status
    return INTERRUPTED if isinstance(cause, KeyboardInterrupt) else None
