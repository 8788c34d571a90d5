"""The check of the ``Host`` header, against DNS rebinding."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from cflightning_serve.http.errors import ApiError

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{0,5})?")
_MAX_CACHED = 256
"""Accepted pairs of header and server address that are cached."""


class HostMiddleware:
    """Accepts the host names of loopback, the address that the client has connected to, and configured names.

    A page of ``evil.example`` whose name is made to resolve to this server (DNS rebinding) sends ``Host:
    evil.example``; without this check it could read every response.

    Args:
        app: the application.
        allowed: further names or addresses; ``*`` for any, ``*.example.com`` for all subdomains of ``example.com``.
    """

    def __init__(self, app: ASGIApp, allowed: Sequence[str] = ()) -> None:
        self._app = app
        self._allows_any = "*" in allowed
        self._names = {name.lower().strip("[]").rstrip(".") for name in allowed if not name.startswith("*")}
        self._suffixes = tuple(name[1:].lower() for name in allowed if name.startswith("*."))
        self._accepted: set[tuple[bytes, str]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request unless its host is allowed."""
        self._check(scope)
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        """Raise ``ApiError`` unless there is one host header and it names this server.

        Only HTTP/1.0, which no browser uses, may omit the header.
        """
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1:
            if not hosts and scope["http_version"] == "1.0":
                return
            raise ApiError(400, "host", f"host: must be sent once, got {len(hosts)}")
        address = (scope.get("server") or ("",))[0]
        if (hosts[0], address) in self._accepted:
            return
        text = hosts[0].decode("latin-1")
        match = _HOST.fullmatch(text)
        if match is None:
            raise ApiError(400, "host", f"host: must be a name or an address, got {text[:60]!a}")
        name = match[1].lower().strip("[]").rstrip(".")
        if not self._allows(name, address):
            raise ApiError(
                421, "host", f"host: {name[:60]!a} is not a name of this server; start it with --allow-host NAME"
            )
        if len(self._accepted) < _MAX_CACHED:
            self._accepted.add((hosts[0], address))

    def _allows(self, name: str, address: str) -> bool:
        if self._allows_any or name in self._names or name.endswith(self._suffixes):
            return True
        try:
            literal = ipaddress.ip_address(name)
        except ValueError:
            return name == "localhost" or name.endswith(".localhost")
        return literal.is_loopback or literal.is_unspecified or str(literal) == address.removeprefix("::ffff:")
