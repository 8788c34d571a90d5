"""Requests for a change of protocol (``Upgrade``), which the server ignores as RFC 9110, section 7.8, permits."""

from __future__ import annotations

from collections.abc import Iterable

import httptools

_UPGRADE_HEADERS = {b"upgrade", b"http2-settings"}
"""Headers of an upgrade, which are also the tokens of ``Connection`` that announce them."""


def head_without_upgrade(method: bytes, url: bytes, version: str, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the request line and headers of a request without its upgrade.

    At ``Upgrade:``, httptools ends the request without its body and treats what follows as the other protocol. A new
    parser that is fed this head, and then the bytes after the original one, reads the request as HTTP/1.1.

    Args:
        method: HTTP method.
        url: target of the request, as it was sent.
        version: HTTP version.
        headers: names in lower case, and values.

    Raises:
        httptools.HttpParserError: the request is meaningless without the change: it opens a tunnel (CONNECT).
    """
    if method == b"CONNECT":
        raise httptools.HttpParserError("CONNECT is not supported")
    lines = [b"%s %s HTTP/%s" % (method, url, version.encode())]
    for name, value in headers:
        if name in _UPGRADE_HEADERS:
            continue
        if b"\r" in value or b"\n" in value:
            raise httptools.HttpParserError("a header is folded")
        if name == b"connection":
            value = b", ".join(token for token in value.split(b",") if token.strip().lower() not in _UPGRADE_HEADERS)
        lines.append(b"%s: %s" % (name, value))
    return b"\r\n".join([*lines, b"", b""])
