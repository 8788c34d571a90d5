"""The open connections of a server: how many there may be, and which one makes room."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from time import monotonic
from typing import Protocol


class Member(Protocol):
    """A connection, as far as the table asks it."""

    @property
    def waiting(self) -> bool:
        """Whether it waits for its client: for a request, for the rest of one, or for an answer to be read."""
        ...

    def look(self, now: float) -> None:
        """Close the connection where its client has read nothing for too long."""
        ...

    def drop(self) -> None:
        """End the connection at once, whatever is unsent."""
        ...


class ConnectionTable:
    """The connections of one server, the one that has been answered least recently first.

    Above the limit, the first one that waits for its client is dropped, so that a flood of connections which ask
    nothing closes itself and leaves room for one that asks.

    Args:
        most: connections at once.
        every: seconds between two looks for clients that do not read.
    """

    def __init__(self, most: int, every: float) -> None:
        self._most, self._every = most, every
        self._open: OrderedDict[Member, None] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """Count the open connections."""
        return len(self._open)

    def add(self, member: Member, loop: asyncio.AbstractEventLoop) -> None:
        """Add a new connection, and drop one where there are too many."""
        self._open[member] = None
        if len(self._open) > self._most:
            one = next((one for one in self._open if one.waiting), member)
            self.remove(one)
            one.drop()
        if self._timer is None:
            self._timer = loop.call_later(self._every, self._look, loop)

    def answered(self, member: Member) -> None:
        """Put a connection behind all others."""
        if member in self._open:
            self._open.move_to_end(member)

    def remove(self, member: Member) -> None:
        """Forget a connection."""
        self._open.pop(member, None)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = monotonic()
        for one in list(self._open):
            one.look(now)
        self._timer = loop.call_later(self._every, self._look, loop) if self._open else None
