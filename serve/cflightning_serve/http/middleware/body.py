"""Request bodies: type, size and gzip."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cflightning_serve.http.errors import ApiError
from cflightning_serve.http.serving.executor import ALWAYS_THREAD, Executor
from cflightning_serve.http.serving.memory_budget import UNCOUNTED, MemoryBudget

_JSON = b"application/json"
_MEDIA_TYPE = re.compile(rb"application/(json|[a-z0-9.+-]+\+json|octet-stream)\s*(;.*)?", re.IGNORECASE)
_GZIP = (b"gzip", b"x-gzip")


class BodyMiddleware:
    """Checks a body's headers and reads all of it before the application is called.

    Args:
        app: the application; its ``receive`` returns the whole body at once.
        limit: bytes of a body.
        budget: memory budget, in which large bodies count until the response is complete.
    """

    def __init__(self, app: ASGIApp, limit: int, budget: MemoryBudget) -> None:
        self._app, self._limit, self._budget = app, limit, budget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body, and refuse one that is too large or has invalid headers."""
        headers = dict(scope["headers"])
        if headers.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in headers:
            await self._app(scope, receive, send)
            return
        _check_headers(headers, self._limit)
        parts: list[bytes] = []
        size = held = 0
        try:
            more_body = True
            while more_body:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                parts.append(message.get("body", b""))
                more_body = message.get("more_body", False)
                size += len(parts[-1])
                if size > self._limit:
                    raise _too_large(self._limit)
                if size > UNCOUNTED and not held:  # its final size is unknown
                    self._budget.acquire(self._limit)
                    held = self._limit
            if held:
                self._budget.release(held - size)
                held = size
            await self._app(scope, _replay(parts[0] if len(parts) == 1 else b"".join(parts), receive), send)
        finally:
            self._budget.release(held)


class GzipMiddleware:
    """Decompresses gzip bodies, in a thread.

    Args:
        app: the application.
        limit: bytes of a decompressed body.
        budget: memory budget, in which large bodies count until the response is complete.
        executor: runs the decompression.
    """

    def __init__(self, app: ASGIApp, limit: int, budget: MemoryBudget, executor: Executor) -> None:
        self._app, self._limit, self._budget, self._executor = app, limit, budget, executor

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Decompress the body if it is gzip, and refuse one that is too large."""
        for name, value in scope["headers"]:
            if name == b"content-encoding" and value.lower() in _GZIP:
                break
        else:
            await self._app(scope, receive, send)
            return
        body: bytes = (await receive()).get("body", b"")
        body = await self._executor.run(ALWAYS_THREAD, lambda: decompress(body, self._limit))
        with self._budget.hold(len(body)):
            await self._app(scope, _replay(body, receive), send)


def decompress(body: bytes, limit: int) -> bytes:
    """Decompress a gzip body.

    Raises:
        ApiError: the body is not exactly one gzip member, or is larger than the limit.
    """
    decompressor = zlib.decompressobj(wbits=31)
    try:
        result = decompressor.decompress(body, limit + 1)
    except zlib.error as error:
        raise ApiError(400, "encoding", "the body must be gzip, its content-encoding") from error
    if len(result) > limit:
        raise _too_large(limit)
    if not decompressor.eof or decompressor.unused_data:
        raise ApiError(400, "encoding", "the body must be gzip: one complete member, and nothing after it")
    return result


def _check_headers(headers: Mapping[bytes, bytes], limit: int) -> None:
    """Raise ``ApiError`` for a body that is too large, or of another type or encoding.

    A page of another origin can make a browser send text and forms without a preflight request. So the type must be
    JSON, or the request must have the header of the Open Inference Protocol, which no page can send without CORS.
    """
    length = headers.get(b"content-length")
    if length is not None and (not length.isdigit() or int(length) > limit):
        raise _too_large(limit)
    media_type = headers.get(b"content-type", b"")
    if (
        media_type != _JSON
        and not _MEDIA_TYPE.fullmatch(media_type)
        and b"inference-header-content-length" not in headers
    ):
        got = repr(media_type.decode("latin-1")[:60]) if media_type else "nothing"
        raise ApiError(415, "type", f"content-type: must be application/json, got {got}")
    encoding = headers.get(b"content-encoding")
    if encoding is not None and encoding.lower() not in (b"identity", *_GZIP):
        raise ApiError(415, "encoding", f"content-encoding: must be gzip or left out, got {encoding[:60]!r}")


def _too_large(limit: int) -> ApiError:
    return ApiError(413, "too_large", f"the body must not exceed {limit:,} bytes", {"Connection": "close"})


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a ``receive`` that returns a whole body first."""
    replayed = False

    async def replay() -> Message:
        nonlocal replayed
        if replayed:
            return await receive()
        replayed = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
