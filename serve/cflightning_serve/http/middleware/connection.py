"""A connection as uvicorn has it, with bounds on what comes before a body and around it, and on who does not read."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from cflightning_serve.http.middleware.connection_table import ConnectionTable
from cflightning_serve.http.middleware.upgrades import head_without_upgrade
from cflightning_serve.http.settings import Limits

HEAD = 1 << 16
"""Bytes of a request's line and headers; what arrives with the last of them is not counted."""
EXTENSION = "cflightning"
"""Key of an ASGI scope's extensions: a dictionary, where ``drop`` ends the connection at once, and ``lost`` is called
when it has ended."""
_AROUND = 8
"""Bytes sent for one of a body in chunks: the smallest chunks take six."""
_PIECE = 1 << 12
"""Bytes that are parsed before another look at how many requests wait: some two hundred of the smallest."""


class Connection(HttpToolsProtocol):
    """HTTP/1.1 as uvicorn speaks it. No client keeps it waiting for headers or for room to write, or sends without end.

    Its errors are JSON, as all others are. Requests that arrive before their predecessors are answered wait as bytes.
    """

    limits: Limits
    table: ConnectionTable

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._in_head = True
        self._head = self._behind = 0
        self._unanswered = 0
        self._unparsed = bytearray()
        self._refusal: bytes | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._unread_since: float | None = None
        self._extension: dict[object, Any] = {"drop": self.drop}
        self._extensions = {EXTENSION: self._extension}

    @property
    def waiting(self) -> bool:
        """Whether it waits for its client: for a request, for the rest of one, or for an answer to be read."""
        return (
            self._unanswered == 0
            or (self._unanswered == 1 and self.cycle.more_body)
            or self.transport.get_write_buffer_size() > 0
        )

    def look(self, now: float) -> None:
        """Drop the connection where its client has read nothing, or not the end, for too long."""
        if not self.transport.get_write_buffer_size():
            self._unread_since = None
        elif self._unread_since is None:
            self._unread_since = now
        elif now - self._unread_since >= self.limits.seconds:
            self.drop()

    def drop(self) -> None:
        """End the connection at once, whatever is unsent."""
        self.transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock: a client that connects must send a request."""
        super().connection_made(transport)
        self._start_clock()
        self.table.add(self, self.loop)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_clock()
        self.table.remove(self)
        self._unparsed.clear()
        super().connection_lost(exc)
        lost = self._extension.pop("lost", None)
        if lost is not None:
            lost()

    def resume_writing(self) -> None:
        """Note that the client has read."""
        self._unread_since = None
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        """Parse what came, as far as the requests before are answered."""
        if self._refusal is not None:
            return
        if len(data) <= _PIECE and not self._unparsed:
            self._feed(data)
        else:
            self._unparsed += data
            self._parse()

    def on_message_begin(self) -> None:
        """A request begins."""
        self._in_head, self._head = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Its headers end; from here on the application bounds it."""
        if self.parser.should_upgrade():  # comes again without
            return
        self._in_head, self._behind = False, 0
        self._stop_clock()
        self.scope["extensions"] = self._extensions
        super().on_headers_complete()
        self._unanswered += 1

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, but none that follows a body in chunks: nobody reads it."""
        if self._in_head:
            super().on_header(name, value)

    def on_response_complete(self) -> None:
        """Go on with what has come in the meantime."""
        self._unanswered -= 1
        self.table.answered(self)
        super().on_response_complete()
        if self._refusal is not None:
            self._send_refusal()
        elif self._unparsed or self.pipeline:
            self._parse()

    def _should_upgrade(self) -> bool:
        """Make uvicorn leave a request alone that wishes for another protocol: it comes again without the wish."""
        return True

    def _parse(self) -> None:
        while self._unparsed and not self.pipeline and self._refusal is None and not self.transport.is_closing():
            piece = bytes(self._unparsed[:_PIECE])
            del self._unparsed[:_PIECE]
            self._feed(piece)
        if self._unparsed or self.pipeline:
            self.flow.pause_reading()

    def _feed(self, data: bytes) -> None:
        """Parse, and see how much the headers have become."""
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None
        began = self._in_head
        try:
            self._feed_parser(data)
        except httptools.HttpParserError:
            self._refuse(400, "http", "the request must be HTTP/1.1")
            return
        if not self._in_head:
            if not began:
                self._behind += len(data)
                if self._behind > _AROUND * (self.limits.body + HEAD):
                    self.transport.close()
            return
        self._head += len(data) if began else 0
        if self._head > HEAD:
            self._refuse(431, "headers", f"the headers must not exceed {HEAD:,} bytes")
        elif self._timer is None:
            self._start_clock()

    def _feed_parser(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as stop:
            method, version = self.parser.get_method(), self.parser.get_http_version()
            head = head_without_upgrade(method, self.url, version, self.headers)
            self.parser = httptools.HttpRequestParser(self)
            # As uvicorn has it: what follows "Connection: close" is not read, and is no error.
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            self._feed_parser(head + data[stop.args[0] :])

    def _start_clock(self) -> None:
        self._timer = self.loop.call_later(self.limits.seconds, self._late)

    def _stop_clock(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        if self._head == 0 and self.cycle is None:  # a client that never said a word, as browsers connect to be ready
            self.transport.close()
        elif not self.transport.is_closing():
            self._refuse(408, "time", f"the headers must be complete within {self.limits.seconds:g} seconds")

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Answer with an error, behind the answers to all requests that came before it, and close."""
        body = json.dumps({"error": {"code": code, "message": message}}).encode()
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self._refusal = STATUS_LINE[status] + head + body
        self._unparsed.clear()
        if self._unanswered and not self._in_head and self.cycle.more_body:  # the request that is broken
            self._unanswered -= 1
            if self.pipeline:
                self.pipeline.popleft()
        self._send_refusal()

    def _send_refusal(self) -> None:
        if self._refusal is not None and self._unanswered == 0 and not self.transport.is_closing():
            self.transport.write(self._refusal)
            self.transport.close()


def connections(limits: Limits) -> type[Connection]:
    """Make the class of a server's connections."""
    table = ConnectionTable(limits.connections, min(1.0, limits.seconds / 4))
    return type("Connection", (Connection,), {"limits": limits, "table": table})
