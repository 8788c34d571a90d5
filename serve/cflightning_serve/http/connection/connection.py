"""An HTTP/1.1 connection with limits on the size of heads, on waiting for its client, and on endless bodies.

uvicorn runs the event loop, the listening socket and the shutdown, and calls this class for each connection, as its
``http`` setting allows. docs/http.md lists the limits that other servers lack.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, cast

import httptools
from starlette.types import ASGIApp, Scope
from uvicorn import Config
from uvicorn.server import ServerState as UvicornState

from cflightning_serve.http.connection.connection_table import ConnectionTable
from cflightning_serve.http.connection.exchange import Exchange, error_response
from cflightning_serve.http.connection.request_parser import RequestParser
from cflightning_serve.http.settings import Limits

MAX_HEAD = 1 << 16
"""Bytes of a request's line and headers; what arrives together with the last of them is not counted."""
EXTENSION = "cflightning"
"""Key of the connection in the extensions of an ASGI scope, for ``abort`` and ``on_disconnect``."""
_CHUNK_OVERHEAD = 8
"""Bytes that a client may send for each byte of a body: the smallest chunks take six."""
_BLOCK = 1 << 12
"""Bytes that are parsed before the number of waiting requests is checked: some two hundred of the smallest requests."""
_MAX_UNREAD_BODY = 1 << 16
"""Bytes of a body that the application has not read, above which the connection is not read."""
_KEEP_ALIVE = 5.0
"""Seconds that a connection stays open between two requests."""


class Connection(asyncio.Protocol):
    """A connection. Requests that arrive before their predecessors are answered wait as unparsed bytes.

    Errors are JSON like those of the application, and come after the responses to all earlier requests.

    Args:
        config: uvicorn's configuration, with the application.
        server_state: uvicorn's record of connections and tasks.
        limits: limits of requests and connections.
        table: open connections of the server.
        **_: further arguments of uvicorn, which are not used.

    Attributes:
        on_disconnect: called once if the client is gone before the current response is complete.
    """

    def __init__(
        self, config: Config, server_state: UvicornState, *, limits: Limits, table: ConnectionTable, **_: object
    ) -> None:
        self._app: ASGIApp = cast(ASGIApp, config.loaded_app)
        self._server_state, self._limits, self._table = server_state, limits, table
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._extensions = {EXTENSION: self}
        self._addresses: dict[str, tuple[str, int] | None] = {}
        self.on_disconnect: Callable[[], None] | None = None
        self._parser = RequestParser(self)
        self._unparsed = bytearray()
        self._parsing: Exchange | None = None  # its body is being parsed
        self._exchanges: deque[Exchange] = deque()  # the first one runs, the others wait
        self._error: bytes | None = None  # response to what cannot be parsed, after all others
        self._timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._reading = True
        self._writable = asyncio.Event()
        self._writable.set()
        self._unread_since: float | None = None

    # Connection table -------------------------------------------------------------------------------------------------

    @property
    def waits_for_client(self) -> bool:
        """True if the client has to act: send a request or the rest of one, or read a response."""
        return (
            not self._exchanges
            or (len(self._exchanges) == 1 and not self._exchanges[0].body_complete)
            or self._transport.get_write_buffer_size() > 0
        )

    def abort_if_unread(self, now: float) -> None:
        """Abort the connection if its client has not read the response for too long."""
        if not self._transport.get_write_buffer_size():
            self._unread_since = None
        elif self._unread_since is None:
            self._unread_since = now
        elif now - self._unread_since >= self._limits.seconds:
            self.abort()

    def abort(self) -> None:
        """Close the connection at once and discard unsent data."""
        self._transport.abort()

    # asyncio.Protocol, and uvicorn's shutdown -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the deadline of the first request."""
        self._transport = cast(asyncio.Transport, transport)
        for key, name in (("client", "peername"), ("server", "sockname")):
            address = transport.get_extra_info(name)
            self._addresses[key] = (address[0], address[1]) if isinstance(address, tuple) else None
        self._server_state.connections.add(self)  # type: ignore[arg-type]  # uvicorn names only its own classes
        self._start_timer()
        self._table.add(self, self._loop)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the exchanges."""
        self._stop_timers()
        self._server_state.connections.discard(self)
        self._table.remove(self)
        self._unparsed.clear()
        for exchange in self._exchanges:
            exchange.disconnect()
        self._writable.set()
        if self.on_disconnect is not None and self._exchanges:
            self.on_disconnect()
        self.on_disconnect = None

    def pause_writing(self) -> None:
        """Make exchanges wait: the client does not read as fast as they send."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Resume the exchanges, since the client has read."""
        self._unread_since = None
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        """Parse data, up to the second request that is not answered."""
        if self._error is not None:
            return
        if len(data) <= _BLOCK and not self._unparsed:
            self._parse(data)
            self._update_reading()
        else:
            self._unparsed += data
            self._parse_blocks()

    def shutdown(self) -> None:
        """Close the connection after the requests in progress."""
        if self._exchanges:
            self._exchanges[-1].keep_alive = False
        else:
            self._transport.close()

    # RequestHandler ---------------------------------------------------------------------------------------------------

    def request_begun(self, scope: Scope, keep_alive: bool, expects_continue: bool) -> None:
        """Begin an exchange; it runs at once unless others are before it."""
        self._stop_timers()
        scope.update(self._addresses)
        scope["extensions"] = self._extensions
        self._parsing = Exchange(scope, self, keep_alive, expects_continue)
        self._exchanges.append(self._parsing)
        if len(self._exchanges) == 1:
            self._run(self._parsing)

    def body_received(self, body: bytes) -> None:
        """Add a part of the body; what follows a complete response is ignored."""
        if self._parsing is not None and not self._parsing.response_complete:
            self._parsing.feed(body)

    def request_complete(self) -> None:
        """End the body."""
        if self._parsing is not None:
            self._parsing.feed_eof()

    # For exchanges ----------------------------------------------------------------------------------------------------

    @property
    def default_headers(self) -> Iterable[tuple[bytes, bytes]]:
        """Headers of every response: the date, which uvicorn updates."""
        return self._server_state.default_headers

    async def drain(self) -> None:
        """Wait until the client has read enough of what was written."""
        if not self._writable.is_set():
            await self._writable.wait()

    def write(self, data: bytes) -> None:
        """Send bytes."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """Close the connection after what was written."""
        self._transport.close()

    def body_read(self) -> None:
        """Note that the application has read the body so far."""
        if not self._reading:
            self._update_reading()

    def exchange_complete(self, exchange: Exchange) -> None:
        """Start the next request."""
        self._exchanges.popleft()
        self.on_disconnect = None
        exchange.body.clear()  # the rest of it is ignored, see `body_received`
        if self._parsing is exchange and exchange.body_complete:
            self._parsing = None
        self._server_state.total_requests += 1
        self._table.move_to_end(self)
        if self._transport.is_closing():
            return
        if self._exchanges:
            self._run(self._exchanges[0])
        else:
            self._idle_timer = self._loop.call_later(_KEEP_ALIVE, self._transport.close)
        self._send_error()
        self._parse_blocks()

    # Parsing ----------------------------------------------------------------------------------------------------------

    def _run(self, exchange: Exchange) -> None:
        task = self._loop.create_task(exchange.run(self._app))
        self._server_state.tasks.add(task)
        task.add_done_callback(self._server_state.tasks.discard)

    def _parse_blocks(self) -> None:
        """Parse waiting bytes until two requests are unanswered."""
        while self._unparsed and len(self._exchanges) < 2 and self._error is None and not self._transport.is_closing():
            block = bytes(self._unparsed[:_BLOCK])
            del self._unparsed[:_BLOCK]
            self._parse(block)
        self._update_reading()

    def _update_reading(self) -> None:
        """Stop reading while bytes, requests or a body wait."""
        body = 0 if self._parsing is None else len(self._parsing.body)
        reading = not self._unparsed and len(self._exchanges) < 2 and body <= _MAX_UNREAD_BODY
        if reading != self._reading and not self._transport.is_closing():
            self._reading = reading
            (self._transport.resume_reading if reading else self._transport.pause_reading)()

    def _parse(self, data: bytes) -> None:
        """Parse a block and check the size of head and body."""
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        parser = self._parser
        try:
            parser.feed(data)
        except httptools.HttpParserError:
            self._refuse(400, "http", "the request must be HTTP/1.1")
            return
        if not parser.in_head:
            if parser.body_size > _CHUNK_OVERHEAD * (self._limits.body + MAX_HEAD):
                self._transport.close()
        elif parser.head_size > MAX_HEAD:
            self._refuse(431, "headers", f"the headers must not exceed {MAX_HEAD:,} bytes")
        elif self._timer is None:
            self._start_timer()

    # Deadline of heads, and errors ------------------------------------------------------------------------------------

    def _start_timer(self) -> None:
        self._timer = self._loop.call_later(self._limits.seconds, self._time_out)

    def _stop_timers(self) -> None:
        for timer in (self._timer, self._idle_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._idle_timer = None

    def _time_out(self) -> None:
        if not self._parser.has_begun:
            self._transport.close()  # browsers connect in advance
        elif not self._transport.is_closing():
            self._refuse(408, "time", f"the headers must be complete within {self._limits.seconds:g} seconds")

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Send an error after the responses to all earlier requests, and close the connection."""
        self._error = error_response(status, code, message)
        self._unparsed.clear()
        broken = self._parsing
        if broken is not None and not self._parser.in_head and not broken.body_complete and broken in self._exchanges:
            self._exchanges.remove(broken)
            broken.disconnect()
            if broken.response_started:
                self._transport.close()
        self._send_error()

    def _send_error(self) -> None:
        if self._error is not None and not self._exchanges and not self._transport.is_closing():
            self._transport.write(self._error)
            self._transport.close()


def connection_factory(limits: Limits) -> type[asyncio.Protocol]:
    """Return what uvicorn calls for each new connection of a server."""
    table = ConnectionTable(limits.connections, min(1.0, limits.seconds / 4))
    factory: Any = partial(Connection, limits=limits, table=table)
    return cast(type[asyncio.Protocol], factory)
