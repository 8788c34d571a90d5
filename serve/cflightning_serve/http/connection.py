"""One connection: uvicorn's, with bounds on what comes before the body and around it, where no application sees it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from cflightning_serve.http.settings import Limits

HEAD = 1 << 16
"""Bytes of a request's line and headers; what arrives with the last of them is not counted."""
_AROUND = 8
"""Bytes sent for one of a body in chunks: the smallest chunks take six."""


class Connection(HttpToolsProtocol):
    """HTTP/1.1 as uvicorn speaks it, but nobody keeps it waiting for a header, or sends one without end.

    Its errors are JSON, as all others are.
    """

    seconds = 10.0
    """Until the headers of a request are complete, from its first byte or, of the first request, from connecting."""
    body = 1 << 20
    """Bytes of a body, without what stands between its chunks and behind them."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._in_head = True
        self._head = self._behind = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock: who connects must ask."""
        super().connection_made(transport)
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, and see how much the headers have become."""
        began = self._in_head
        super().data_received(data)
        if self.transport.is_closing():
            return
        if not self._in_head:
            self._behind += 0 if began else len(data)
            if self._behind > _AROUND * (self.body + HEAD):
                self.transport.close()
            return
        self._head += len(data) if began else 0
        if self._head > HEAD:
            self._refuse(431, "headers", f"the headers must not exceed {HEAD:,} bytes")
        elif self._timer is None:
            self._start_clock()

    def on_message_begin(self) -> None:
        """A request begins."""
        self._in_head, self._head = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Its headers end; from here on the application bounds it."""
        self._in_head, self._behind = False, 0
        self._stop_clock()
        super().on_headers_complete()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, but none that follows a body in chunks: nobody reads it."""
        if self._in_head:
            super().on_header(name, value)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        self._refuse(400, "http", msg)

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: any client may ask for another protocol, and goes on without."""

    def _start_clock(self) -> None:
        self._timer = self.loop.call_later(self.seconds, self._late)

    def _stop_clock(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        if self._head == 0 and self.cycle is None:  # who never said a word, as browsers connect to be ready
            self.transport.close()
        elif not self.transport.is_closing():
            self._refuse(408, "time", f"the headers must be complete within {self.seconds:g} seconds")

    def _refuse(self, status: int, code: str, message: str) -> None:
        body = json.dumps({"error": {"code": code, "message": message}}).encode()
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()


def connections(limits: Limits) -> type[Connection]:
    """The class of a server's connections."""
    return type("Connection", (Connection,), {"seconds": limits.seconds, "body": limits.body})
