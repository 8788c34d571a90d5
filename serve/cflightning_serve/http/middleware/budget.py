"""The bytes of large requests and answers that a server holds at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cflightning_serve.http.errors import ApiError


class Budget:
    """A number of bytes of which requests take their part for as long as they need it. Used by the event loop alone.

    Args:
        size: bytes.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self.taken = 0
        """Bytes."""

    def take(self, count: int) -> None:
        """Take some bytes.

        Raises:
            ApiError: there are not so many.
        """
        if count > self._size:
            raise ApiError(
                422, "limit", f"needs {count:,} bytes, of {self._size:,} that this server holds; ask for less"
            )
        if self.taken + count > self._size:
            raise ApiError(503, "busy", "too many large requests and answers; try again", {"Retry-After": "1"})
        self.taken += count

    def give(self, count: int) -> None:
        """Give them back."""
        self.taken -= count

    @contextmanager
    def holding(self, count: int) -> Iterator[None]:
        """Take some bytes until the end of the block.

        Raises:
            ApiError: there are not so many.
        """
        self.take(count)
        try:
            yield
        finally:
            self.give(count)
