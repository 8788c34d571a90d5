"""The body of a request: its type, its length, its packing."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from cflightning_serve.http.errors import ApiError
from cflightning_serve.http.serving.memory_budget import UNCOUNTED, MemoryBudget

_JSON = b"application/json"
_TYPE = re.compile(rb"application/(json|[a-z0-9.+-]+\+json|octet-stream)\s*(;.*)?", re.IGNORECASE)


def has_body(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a request announces a body."""
    return headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers


def refuse_body(headers: Mapping[bytes, bytes], limit: int) -> ApiError | None:
    """Check what the headers say of the body.

    A page elsewhere can make a browser send any body, but only as text or as a form, unless the server allows more by
    CORS. So the type must be JSON, or the bytes of the Open Inference Protocol, whose header no page may send either.
    """
    length = headers.get(b"content-length")
    if length is not None and (not length.isdigit() or int(length) > limit):
        return _too_large(limit)
    kind = headers.get(b"content-type", b"")
    if kind != _JSON and not _TYPE.fullmatch(kind) and b"inference-header-content-length" not in headers:
        got = repr(kind.decode("latin-1")[:60]) if kind else "nothing"
        return ApiError(415, "type", f"content-type: must be application/json, got {got}")
    packing = headers.get(b"content-encoding")
    if packing is not None and packing.lower() not in (b"identity", b"gzip", b"x-gzip"):
        return ApiError(415, "encoding", f"content-encoding: must be gzip or left out, got {packing[:60]!r}")
    return None


def is_packed(headers: Mapping[bytes, bytes]) -> bool:
    """Whether the body is packed by gzip."""
    return headers.get(b"content-encoding", b"").lower() in (b"gzip", b"x-gzip")


def unpack(body: bytes, limit: int) -> bytes:
    """Unpack a body.

    Raises:
        ApiError: it is not one whole gzip member, or larger than the limit.
    """
    packed = zlib.decompressobj(wbits=31)
    try:
        unpacked = packed.decompress(body, limit + 1)
    except zlib.error as error:
        raise ApiError(400, "encoding", "the body must be gzip, as its content-encoding says") from error
    if len(unpacked) > limit:
        raise _too_large(limit)
    if not packed.eof or packed.unused_data:
        raise ApiError(400, "encoding", "the body must be gzip, one whole member and nothing behind it")
    return unpacked


class Body:
    """The body of one request. What is large counts in the budget until :meth:`give_back`.

    Args:
        receive: of ASGI.
        limit: bytes.
        budget: of the server.
    """

    def __init__(self, receive: Receive, limit: int, budget: MemoryBudget) -> None:
        self._receive, self._limit, self._budget = receive, limit, budget
        self._held = 0

    async def read(self) -> bytes:
        """Wait for all of it.

        Raises:
            ApiError: it is too large, for the limit or for what the server holds already.
            ClientDisconnect: the client went away.
        """
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            part = message.get("body", b"")
            size += len(part)
            if size > self._limit:
                raise _too_large(self._limit)
            if size > UNCOUNTED and not self._held:
                self._budget.acquire(self._limit)
                self._held = self._limit
            parts.append(part)
            if not message.get("more_body", False):
                return parts[0] if len(parts) == 1 else b"".join(parts)

    def grow(self, size: int) -> None:
        """Count a body that has been unpacked to so many bytes.

        Raises:
            ApiError: the server holds too much already.
        """
        if size > max(UNCOUNTED, self._held):
            self._budget.acquire(size - self._held)
            self._held = size

    def give_back(self) -> None:
        """Count it no more."""
        self._budget.release(self._held)
        self._held = 0


def _too_large(limit: int) -> ApiError:
    return ApiError(413, "too_large", f"the body must not exceed {limit:,} bytes", {"Connection": "close"})
