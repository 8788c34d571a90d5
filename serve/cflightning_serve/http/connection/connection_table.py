"""The open connections of a server, and their limit."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from time import monotonic
from typing import Protocol


class Member(Protocol):
    """The part of a connection that the table uses."""

    @property
    def waits_for_client(self) -> bool:
        """True if the client has to act: send a request or the rest of one, or read a response."""
        ...

    def abort_if_unread(self, now: float) -> None:
        """Abort the connection if its client has not read the response for too long."""
        ...

    def abort(self) -> None:
        """Close the connection at once and discard unsent data."""
        ...


class ConnectionTable:
    """The open connections in order of their last response, least recent first.

    At the limit, the first connection that waits for its client is aborted. Idle connections thereby make room for new
    ones, and a flood of them displaces itself.

    Args:
        max_connections: maximal number of connections.
        check_interval: seconds between two checks for clients that do not read.
    """

    def __init__(self, max_connections: int, check_interval: float) -> None:
        self._max_connections, self._check_interval = max_connections, check_interval
        self._members: OrderedDict[Member, None] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """Return the number of open connections."""
        return len(self._members)

    def add(self, member: Member, loop: asyncio.AbstractEventLoop) -> None:
        """Add a new connection; at the limit, abort another one."""
        self._members[member] = None
        if len(self._members) > self._max_connections:
            idle = next((member for member in self._members if member.waits_for_client), member)
            self.remove(idle)
            idle.abort()
        if self._timer is None:
            self._timer = loop.call_later(self._check_interval, self._check, loop)

    def move_to_end(self, member: Member) -> None:
        """Record that a connection has got a response."""
        if member in self._members:
            self._members.move_to_end(member)

    def remove(self, member: Member) -> None:
        """Remove a connection."""
        self._members.pop(member, None)

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        now = monotonic()
        for member in list(self._members):
            member.abort_if_unread(now)
        self._timer = loop.call_later(self._check_interval, self._check, loop) if self._members else None
