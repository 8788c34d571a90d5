"""Parsing of HTTP/1.1 requests, with the sizes of heads and bodies."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol
from urllib.parse import unquote

import httptools
from starlette.types import Scope

_UPGRADE_HEADERS = {b"upgrade", b"http2-settings"}
"""Headers of an upgrade, which are also the tokens of ``Connection`` that announce them."""


class RequestHandler(Protocol):
    """Receiver of parsed requests."""

    def request_begun(self, scope: Scope, keep_alive: bool, expects_continue: bool) -> None:
        """Handle the head of a request.

        Args:
            scope: ASGI scope, without what depends on the connection.
            keep_alive: whether the connection stays open after the response.
            expects_continue: whether the client waits for "100 Continue" before it sends the body.
        """
        ...

    def body_received(self, body: bytes) -> None:
        """Handle a part of the body."""
        ...

    def request_complete(self) -> None:
        """Handle the end of the body."""
        ...


class RequestParser:
    """A parser of the requests of one connection.

    A change of protocol (``Upgrade``) is ignored, as RFC 9110, section 7.8, permits. Trailers are ignored as well.

    Args:
        handler: receiver of the requests.

    Attributes:
        has_begun: whether any request has begun.
        in_head: whether a request line and headers are being parsed, or nothing has arrived.
        head_size: bytes of the head so far; what arrives in one block with its beginning or end is not counted.
        body_size: bytes of the body so far, with the framing of chunks and the trailers; counted like ``head_size``.
    """

    def __init__(self, handler: RequestHandler) -> None:
        self._handler = handler
        self.has_begun, self.in_head = False, True
        self.head_size = self.body_size = 0
        self._url, self._headers, self._expects_continue = b"", list[tuple[bytes, bytes]](), False
        self._make_parser()

    def feed(self, data: bytes) -> None:
        """Parse a block of bytes.

        Raises:
            httptools.HttpParserError: the bytes are not HTTP/1.1.
        """
        was_in_head = self.in_head
        self._feed(data)
        if was_in_head and self.in_head:
            self.head_size += len(data)
        elif not was_in_head and not self.in_head:
            self.body_size += len(data)

    # Callbacks of httptools -------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Begin a request."""
        self.has_begun = self.in_head = True
        self.head_size = 0
        self._url, self._headers, self._expects_continue = b"", [], False

    def on_url(self, url: bytes) -> None:
        """Add a part of the URL."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header, but no trailer."""
        if self.in_head:
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self._expects_continue = True
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Pass the head of a request on."""
        parser = self._parser
        if parser.should_upgrade():  # the head is parsed again without the upgrade
            return
        self.in_head, self.body_size = False, 0
        url = httptools.parse_url(self._url)
        path = url.path.decode("ascii")
        version = parser.get_http_version()
        scope: dict[str, object] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": version,
            "scheme": "http",
            "method": parser.get_method().decode("ascii"),
            "path": unquote(path) if "%" in path else path,
            "raw_path": url.path,
            "query_string": url.query or b"",
            "root_path": "",
            "headers": self._headers,
        }
        keep_alive = version != "1.0" and parser.should_keep_alive()
        self._handler.request_begun(scope, keep_alive, self._expects_continue)

    def on_body(self, body: bytes) -> None:
        """Pass a part of the body on."""
        self._handler.body_received(body)

    def on_message_complete(self) -> None:
        """Pass the end of the body on."""
        if not self._parser.should_upgrade():
            self._handler.request_complete()

    # Upgrades ---------------------------------------------------------------------------------------------------------

    def _make_parser(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        # Data after "Connection: close" is ignored without an error.
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)

    def _feed(self, data: bytes) -> None:
        """Parse bytes; at an upgrade, httptools stops after the head and would not read the body.

        A new parser that is fed the head without its upgrade, and then the rest, reads the request as HTTP/1.1.
        """
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            method, version = self._parser.get_method(), self._parser.get_http_version()
            if method == b"CONNECT":
                raise httptools.HttpParserError("CONNECT is not supported") from upgrade
            head = _head_without_upgrade(b"%s %s HTTP/%s" % (method, self._url, version.encode()), self._headers)
            self._make_parser()
            self._feed(head + data[upgrade.args[0] :])


def _head_without_upgrade(line: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return a request line and headers without the headers of an upgrade.

    Raises:
        httptools.HttpParserError: a header has several lines.
    """
    lines = [line]
    for name, value in headers:
        if name in _UPGRADE_HEADERS:
            continue
        if b"\r" in value or b"\n" in value:
            raise httptools.HttpParserError("a header has several lines")
        if name == b"connection":
            value = b", ".join(token for token in value.split(b",") if token.strip().lower() not in _UPGRADE_HEADERS)
        lines.append(b"%s: %s" % (name, value))
    return b"\r\n".join([*lines, b"", b""])
