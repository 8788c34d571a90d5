"""A parser of HTTP/1.1 requests that ignores the wish for another protocol."""

from __future__ import annotations

from typing import Protocol

import httptools

_OF_UPGRADES = {b"upgrade", b"http2-settings"}
"""Headers that only a change of the protocol needs, and the tokens of ``Connection`` that announce them."""


class Request(Protocol):
    """The target of a parser's callbacks, as far as this module reads it."""

    url: bytes
    headers: list[tuple[bytes, bytes]]


class Parser:
    """``httptools.HttpRequestParser`` for servers that speak nothing but HTTP/1.1.

    At ``Upgrade:``, httptools drops the body and takes what follows for the other protocol. RFC 9110, section 7.8, lets
    a server ignore the header: the request is parsed again without it, body and all.

    ``on_headers_complete`` of the target is called twice for such a request, the first time with ``should_upgrade()``
    true; it must ignore that call.

    Args:
        target: object with the callbacks of httptools.
    """

    def __init__(self, target: Request) -> None:
        self._target = target
        self._start()

    def feed_data(self, data: bytes) -> None:
        """Parse some bytes.

        Raises:
            httptools.HttpParserError: they are no HTTP, or ask for a tunnel (CONNECT).
        """
        while True:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as stop:
                data = self._head() + data[stop.args[0] :]
                self._start()
            else:
                return

    def _start(self) -> None:
        self._parser = httptools.HttpRequestParser(self._target)
        # As uvicorn has it: what follows "Connection: close" is not read, and is no error.
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.get_method = self._parser.get_method
        self.get_http_version = self._parser.get_http_version
        self.should_upgrade = self._parser.should_upgrade
        self.should_keep_alive = self._parser.should_keep_alive

    def _head(self) -> bytes:
        """Write the request's line and headers again, without the upgrade."""
        method = self.get_method()
        if method == b"CONNECT":
            raise httptools.HttpParserError("CONNECT is not supported")
        lines = [b"%s %s HTTP/%s" % (method, self._target.url, self.get_http_version().encode())]
        for name, value in self._target.headers:
            if name in _OF_UPGRADES:
                continue
            if b"\r" in value or b"\n" in value:
                raise httptools.HttpParserError("a header is folded")
            if name == b"connection":
                value = b", ".join(part for part in value.split(b",") if part.strip().lower() not in _OF_UPGRADES)
            lines.append(b"%s: %s" % (name, value))
        return b"\r\n".join([*lines, b"", b""])
