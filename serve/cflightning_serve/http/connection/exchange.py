"""The exchange of one request and its response with the ASGI application."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable
from http import HTTPStatus
from typing import Protocol

from starlette.types import ASGIApp, Message, Scope

log = logging.getLogger(__name__)

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_NO_BODY = (204, 304)
"""Status codes of responses without a body."""


class Peer(Protocol):
    """The part of a connection that an exchange uses."""

    @property
    def default_headers(self) -> Iterable[tuple[bytes, bytes]]:
        """Headers of every response."""
        ...

    async def drain(self) -> None:
        """Wait until the client has read enough of what was written."""
        ...

    def write(self, data: bytes) -> None:
        """Send bytes."""
        ...

    def body_read(self) -> None:
        """Note that the application has read the body so far."""
        ...

    def exchange_complete(self, exchange: Exchange) -> None:
        """Note that the response is complete."""
        ...

    def close(self) -> None:
        """Close the connection after what was written."""
        ...


class Exchange:
    """ASGI's ``receive`` and ``send`` of one request.

    Args:
        scope: ASGI scope of the request.
        peer: the connection.
        keep_alive: whether the connection stays open after the response.
        expects_continue: whether the client waits for "100 Continue" before it sends the body.

    Attributes:
        body: bytes of the body that the application has not read yet.
        body_complete: whether the end of the body has arrived.
        disconnected: whether the client is gone; nothing more is sent.
        response_started: whether a part of the response has been sent.
        response_complete: whether all of the response has been sent.
    """

    def __init__(self, scope: Scope, peer: Peer, keep_alive: bool, expects_continue: bool) -> None:
        self.scope, self._peer = scope, peer
        self.keep_alive = keep_alive
        self.body = bytearray()
        self.body_complete = self.disconnected = self.response_started = self.response_complete = False
        self._expects_continue = expects_continue
        self._wake = asyncio.Event()
        self._head: bytes | None = None  # head of the response, until its first body message
        self._remaining: int | None = None  # bytes of the response's body; None for one in chunks

    async def run(self, app: ASGIApp) -> None:
        """Run the application."""
        try:
            await app(self.scope, self.receive, self.send)
        except Exception:
            log.exception("the application failed")
        if self.response_complete or self.disconnected:
            return
        if not self.response_started:
            self._peer.write(error_response(500, "internal", "the server failed; its log has the reason"))
        self._peer.close()

    def feed(self, data: bytes) -> None:
        """Add bytes to the body."""
        self.body += data
        self._wake.set()

    def feed_eof(self) -> None:
        """End the body."""
        self.body_complete = True
        self._wake.set()

    def disconnect(self) -> None:
        """Note that the client is gone."""
        self.disconnected = True
        self._wake.set()

    async def receive(self) -> Message:
        """Return the next part of the body, or that the client or the exchange is gone."""
        if not self.disconnected and not self.response_complete:
            if self._expects_continue:
                self._expects_continue = False
                self._peer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await self._wake.wait()
            self._wake.clear()
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        body = bytes(self.body)
        self.body.clear()
        self._peer.body_read()
        return {"type": "http.request", "body": body, "more_body": not self.body_complete}

    async def send(self, message: Message) -> None:
        """Send a part of the response; the head goes out with the first part of the body."""
        await self._peer.drain()
        if self.disconnected:
            return
        if message["type"] == "http.response.start" and self._head is None and not self.response_started:
            self._head = self._make_head(message)
            return
        if (
            message["type"] != "http.response.body"
            or self.response_complete
            or not (self._head or self.response_started)
        ):
            raise RuntimeError(f"unexpected ASGI message {message['type']}")
        more_body = message.get("more_body", False)
        data = self._frame(message.get("body", b""), more_body)
        if self._head is not None:
            data, self._head = self._head + data, None
        self._expects_continue = False
        self.response_started = True
        self._peer.write(data)
        if not more_body:
            self.response_complete = True
            self._wake.set()
            if not self.keep_alive:
                self._peer.close()
            self._peer.exchange_complete(self)

    def _make_head(self, message: Message) -> bytes:
        status, self._remaining = message["status"], None
        parts = [_STATUS_LINES[status]]
        for name, value in self._peer.default_headers:
            parts += name, b": ", value, b"\r\n"
        closes = False
        for name, value in message.get("headers", ()):
            if b"\r" in value or b"\n" in value:
                raise RuntimeError(f"a response header must be one line, got {name!r}")
            lower = name.lower()
            if lower == b"content-length":
                self._remaining = int(value)
            elif lower == b"connection" and b"close" in value.lower():
                self.keep_alive, closes = False, True
            parts += lower, b": ", value, b"\r\n"
        if not self.keep_alive and not closes:
            parts.append(b"connection: close\r\n")
        if self.scope["method"] == "HEAD" or status in _NO_BODY:
            self._remaining = 0
        elif self._remaining is None:
            parts.append(b"transfer-encoding: chunked\r\n")
        parts.append(b"\r\n")
        return b"".join(parts)

    def _frame(self, body: bytes, more_body: bool) -> bytes:
        """Return a part of the body as it is sent."""
        if self._remaining is None:
            chunk = b"%x\r\n%s\r\n" % (len(body), body) if body else b""
            return chunk if more_body else chunk + b"0\r\n\r\n"
        if self.scope["method"] == "HEAD":
            return b""
        self._remaining -= len(body)
        if self._remaining < 0 or (self._remaining and not more_body):
            raise RuntimeError("the body of a response must have its content-length")
        return body


def error_response(status: int, code: str, message: str) -> bytes:
    """Return a whole error response, after which the connection is closed."""
    body = json.dumps({"error": {"code": code, "message": message}}).encode()
    head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
    return _STATUS_LINES[status] + head + body
