"""Failures for want of space, permission or memory, told in one line."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from cflightning.errors import CFLightningError, ResourceError, StorageError
from cflightning.utils.files import FULL, is_storage_failure, storage_error

MEMORY = re.compile(
    r"DefaultCPUAllocator|out of memory|not enough memory|can't allocate memory|Unable to allocate", re.I
)
"""What torch, CUDA and numpy say."""
AMOUNT = re.compile(r"(?:allocate|llocating) (\d[\d.,]*) ?(bytes|[KMGTP]i?B)", re.I)


def resource_error(error: BaseException, advice: str = "") -> CFLightningError | None:
    """Tell whether an exception means that the disk or the memory does not suffice.

    Args:
        error: what was raised; also what it was raised in the handling of.
        advice: which options ask for less memory.

    Returns:
        The error to show in its place; None where it is another one.
    """
    causes = [cause for cause in _chain(error) if isinstance(cause, StorageError) or is_storage_failure(cause)]
    if causes:
        named = [cause for cause in causes if isinstance(cause, StorageError)]
        cause = (named or causes)[0]
        if isinstance(cause, StorageError):
            return cause
        assert isinstance(cause, OSError)
        return storage_error(Path(os.fsdecode(cause.filename or "a file")), cause)
    text = str(error)
    if not isinstance(error, CFLightningError) and (
        isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and MEMORY.search(text))
    ):
        asked = AMOUNT.search(text)
        amount = f"{_amount(asked[1], asked[2])} more are needed at once" if asked else "more is needed"
        return ResourceError(f"memory: {amount} than there is{_available()}{advice}")
    return None


def advice_on_storage(error: BaseException) -> str:
    """Advice for a file that cannot be written."""
    cause = next((one for one in _chain(error) if is_storage_failure(one)), None)
    full = isinstance(cause, OSError) and cause.errno in FULL
    return f"; {'free some space' if full else 'ask for permission'}, or write elsewhere: --trainer.default_root_dir"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception and what led to it, the first one first."""
    found: list[BaseException] = []
    now: BaseException | None = error
    while now is not None and now not in found:
        found.append(now)
        now = now.__cause__ or now.__context__
    return reversed(found)


def _amount(number: str, unit: str) -> str:
    if unit.lower() != "bytes":
        return f"{number} {unit}"
    return f"{int(number.replace(',', '').rstrip('.')) / 1e9:,.1f} GB"


def _available() -> str:
    """Free memory, where the system says it."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, ValueError, StopIteration):
        return ""
    return f" ({kilobytes / 1e6:,.1f} GB are free)"
