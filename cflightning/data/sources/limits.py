"""Limits on the size of a table, checked before memory is allocated."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from cflightning.errors import DataError

VARIABLE = "CFLIGHTNING_MAX_BYTES"
"""Environment variable that replaces the limits below: maximum unpacked bytes of a source."""
MAX_COLUMNS = 10_000
MAX_LINE = 1_000_000
"""Maximum bytes of a line of a text table."""
_SUSPICIOUS_SIZE, _SUSPICIOUS_RATIO = 1 << 28, 200
"""Unpacked bytes and compression ratio above which a file is refused; ratings compress about tenfold."""


def check_size(name: str, size: int, packed: int | None = None) -> None:
    """Check the size of a source against the available memory and the compression ratio.

    Args:
        name: Name of the source in messages.
        size: Bytes needed in memory; for a compressed source, those unpacked so far.
        packed: Bytes on disk of a compressed source.

    Raises:
        DataError: The source exceeds a limit.
    """
    what = "holds" if packed is None else f"unpacks from {packed:,} bytes to"
    limit = os.environ.get(VARIABLE)
    if limit is not None:
        if not limit.isdecimal():
            raise DataError(f"{VARIABLE}: must be a number of bytes, got {limit[:40]!r}; correct it or unset it")
        if size > int(limit):
            raise DataError(
                f"{name}: {what} at least {size:,} bytes, more than {VARIABLE}={limit}; raise it to read it"
            )
        return
    if packed is not None and size > max(_SUSPICIOUS_SIZE, _SUSPICIOUS_RATIO * packed):
        raise DataError(
            f"{name}: {what} more than {size - 1:,} bytes, which no table of ratings does; if it is one all the same, "
            f"set the environment variable {VARIABLE} to the bytes that it may take"
        )
    left = available_memory()
    if left is not None and size > left:
        raise DataError(
            f"{name}: {what} at least {size:,} bytes, but {left:,} bytes of memory are left; "
            "use a larger machine, or a part of the rows or columns"
        )


def check_columns(name: str, count: int) -> None:
    """Check the number of columns.

    Raises:
        DataError: There are more than `MAX_COLUMNS`.
    """
    if count > MAX_COLUMNS:
        raise DataError(
            f"{name}: must have at most {MAX_COLUMNS:,} columns, got {count:,}; one row is one rating: a matrix of "
            "users and items must be melted into columns user, item and rating"
        )


def available_memory() -> int | None:
    """Return the bytes that this process can still allocate, swap included; None if the system does not report them."""
    amounts = [left for left in (_machine_memory(), _container_memory(), _process_memory()) if left is not None]
    return max(min(amounts), 0) if amounts else None


def _machine_memory() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if len(line.split()) > 1}
    return sizes["MemAvailable"] + sizes.get("SwapFree", 0) if "MemAvailable" in sizes else None


def _container_memory() -> int | None:
    """Return the bytes left below the memory limit of the container's control group (cgroup version 2)."""
    try:
        limit, used = (Path(f"/sys/fs/cgroup/memory.{what}").read_text(encoding="ascii") for what in ("max", "current"))
        cached = Path("/sys/fs/cgroup/memory.stat").read_text(encoding="ascii").split("inactive_file ")[1].split()[0]
        return int(limit) - int(used) + int(cached)
    except (OSError, ValueError, IndexError):  # no limit
        return None


def _process_memory() -> int | None:
    if sys.platform == "win32":
        return None
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return None
    try:
        used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    except OSError:
        used = 0
    return limit - used
