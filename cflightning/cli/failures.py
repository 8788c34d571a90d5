"""Errors for lack of disk space, permission or memory, as one line."""

from __future__ import annotations

import os
import re
from pathlib import Path

from cflightning.errors import CFLightningError, ResourceError, StorageError
from cflightning.utils.files import FULL, is_storage_failure, storage_error

MEMORY = re.compile(
    r"DefaultCPUAllocator|out of memory|not enough memory|can't allocate memory|Unable to allocate", re.I
)
"""Messages of torch, CUDA and numpy."""
AMOUNT = re.compile(r"(?:allocate|llocating) (\d[\d.,]*) ?(bytes|[KMGTP]i?B)", re.I)
"""The size of a failed allocation in such a message."""


def resource_error(error: BaseException, advice: str = "") -> CFLightningError | None:
    """Return the error to show for an exception that means a lack of disk space or memory; None for any other.

    Args:
        error: The exception; its causes are examined too.
        advice: Options that reduce the memory, for the message.
    """
    causes = exception_chain(error)[::-1]
    if reported := next((cause for cause in causes if isinstance(cause, StorageError)), None):
        return reported
    failure = next((cause for cause in causes if is_storage_failure(cause)), None)
    if isinstance(failure, OSError):
        return storage_error(Path(os.fsdecode(failure.filename or "a file")), failure)
    text = str(error)
    if not isinstance(error, CFLightningError) and (
        isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and MEMORY.search(text))
    ):
        allocation = AMOUNT.search(text)
        amount = f"an allocation of {_format_size(*allocation.groups())}" if allocation else "an allocation"
        return ResourceError(f"memory: {amount} exceeds the free memory{_available()}{advice}")
    return None


def advice_on_storage(error: BaseException) -> str:
    """Return advice for a file that cannot be written."""
    cause = next((cause for cause in reversed(exception_chain(error)) if is_storage_failure(cause)), None)
    full = isinstance(cause, OSError) and cause.errno in FULL
    return (
        f"; {'free some space' if full else 'change the permissions'}, or write elsewhere: --trainer.default_root_dir"
    )


def exception_chain(error: BaseException) -> list[BaseException]:
    """Return the exception, its cause, the cause of that, and so on."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    return chain


def _format_size(number: str, unit: str) -> str:
    if unit.lower() != "bytes":
        return f"{number} {unit}"
    return f"{int(number.replace(',', '').rstrip('.')) / 1e9:,.1f} GB"


def _available() -> str:
    """Return the free memory for a message, if the system reports it."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, ValueError, StopIteration):
        return ""
    return f" ({kilobytes / 1e6:,.1f} GB are free)"
