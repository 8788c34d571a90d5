"""Requests that wish for another protocol: the wish is ignored, as RFC 9110, section 7.8, lets a server do."""

from __future__ import annotations

from collections.abc import Iterable

import httptools

_OF_UPGRADES = {b"upgrade", b"http2-settings"}
"""Headers that only a change of the protocol needs, and the tokens of ``Connection`` that announce them."""


def head_without_upgrade(method: bytes, url: bytes, version: str, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Write the line and headers of a request again, without the upgrade.

    At ``Upgrade:``, httptools drops the body and takes what follows for the other protocol. A new parser that is given
    this head, and then the bytes behind the old one, reads the request as HTTP/1.1, body and all.

    Args:
        method: of the request.
        url: as it was sent.
        version: of HTTP.
        headers: names in lower case, and values.

    Raises:
        httptools.HttpParserError: the request cannot do without: it asks for a tunnel (CONNECT).
    """
    if method == b"CONNECT":
        raise httptools.HttpParserError("CONNECT is not supported")
    lines = [b"%s %s HTTP/%s" % (method, url, version.encode())]
    for name, value in headers:
        if name in _OF_UPGRADES:
            continue
        if b"\r" in value or b"\n" in value:
            raise httptools.HttpParserError("a header is folded")
        kept = value
        if name == b"connection":
            kept = b", ".join(part for part in value.split(b",") if part.strip().lower() not in _OF_UPGRADES)
        lines.append(b"%s: %s" % (name, kept))
    return b"\r\n".join([*lines, b"", b""])
