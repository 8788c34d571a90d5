"""The memory budget: bytes of large requests and responses that are in memory at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cflightning_serve.http.errors import ApiError

UNCOUNTED = 1 << 16
"""Bytes of a body or response that are not counted; the number of requests bounds the small ones."""


class MemoryBudget:
    """A number of bytes that requests share. Used by the event loop alone.

    Args:
        size: bytes.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._acquired = 0

    def acquire(self, count: int) -> None:
        """Take bytes from the budget.

        Raises:
            ApiError: fewer are available.
        """
        if count > self._size:
            raise ApiError(
                422, "limit", f"needs {count:,} bytes, of {self._size:,} that this server holds; ask for less"
            )
        if self._acquired + count > self._size:
            raise ApiError(503, "busy", "too many large requests and responses; try again", {"Retry-After": "1"})
        self._acquired += count

    def release(self, count: int) -> None:
        """Return bytes to the budget."""
        self._acquired -= count

    @contextmanager
    def hold(self, count: int) -> Iterator[None]:
        """Hold bytes until the end of the block; up to ``UNCOUNTED`` are free.

        Raises:
            ApiError: fewer are available.
        """
        counted = count if count > UNCOUNTED else 0
        self.acquire(counted)
        try:
            yield
        finally:
            self.release(counted)
