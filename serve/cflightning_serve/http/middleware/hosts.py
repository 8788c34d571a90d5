"""The ``Host`` header: for which names a server answers."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from starlette.types import Scope

from cflightning_serve.http.errors import ApiError

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{0,5})?")
_REMEMBERED = 256


class Hosts:
    """The names of a server: those of loopback, the address that a client connected to, and others by choice.

    A page of ``evil.example`` whose name is made to point to this server (DNS rebinding) asks with ``Host:
    evil.example``; without this check it could read every answer.

    Args:
        allowed: more names or addresses; ``*`` for any, ``*.example.com`` for all below ``example.com``.
    """

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        self._any = "*" in allowed
        self._names = {name.lower().strip("[]").rstrip(".") for name in allowed if not name.startswith("*")}
        self._ends = tuple(name[1:].lower() for name in allowed if name.startswith("*."))
        self._right: set[tuple[bytes, str]] = set()

    def refuse(self, scope: Scope) -> ApiError | None:
        """Check the header of a request: exactly one, of a name that is this server's.

        Only HTTP/1.0 may leave it out, which no browser speaks.
        """
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1:
            if not hosts and scope["http_version"] == "1.0":
                return None
            return _bad(f"must be sent once, got {len(hosts)}")
        address = (scope.get("server") or ("",))[0]
        if (hosts[0], address) in self._right:
            return None
        text = hosts[0].decode("latin-1")
        found = _HOST.fullmatch(text)
        if found is None:
            return _bad(f"must be a name or an address, got {text[:60]!a}")
        name = found[1].lower().strip("[]").rstrip(".")
        if not self._allows(name, address):
            return ApiError(
                421, "host", f"host: {name[:60]!a} is no name of this server; start it with --allow-host NAME"
            )
        if len(self._right) < _REMEMBERED:
            self._right.add((hosts[0], address))
        return None

    def _allows(self, name: str, address: str) -> bool:
        if self._any or name in self._names or name.endswith(self._ends):
            return True
        try:
            literal = ipaddress.ip_address(name)
        except ValueError:
            return name == "localhost" or name.endswith(".localhost")
        return literal.is_loopback or literal.is_unspecified or str(literal) == address.removeprefix("::ffff:")


def _bad(reason: str) -> ApiError:
    return ApiError(400, "host", f"host: {reason}")
