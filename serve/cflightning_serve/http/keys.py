"""API keys: the file that holds them, and clients that try others."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import os
import stat
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from cflightning_serve.errors import InputError

log = logging.getLogger(__name__)

SHORTEST_KEY = 16
"""Characters; a key is made by a program, not thought of by a person."""
_LARGEST_FILE = 1 << 20
_OTHERS = stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP


class Keys:
    """The keys of a server, kept as digests.

    Args:
        file: holds one a line; None for no keys.

    Raises:
        InputError: the file cannot be read, is open to others, holds no key, or one that is short.
    """

    def __init__(self, file: str | os.PathLike[str] | None = None) -> None:
        self._file = None if file is None else Path(file)
        self._digests: tuple[bytes, ...] = ()
        self.reread()

    def __bool__(self) -> bool:
        """Whether a key is needed."""
        return bool(self._digests)

    def reread(self) -> None:
        """Read the file again; the keys stay as they are where it is at fault.

        Raises:
            InputError: see the class.
        """
        if self._file is not None:
            self._digests = read_keys(self._file)

    def knows(self, key: bytes) -> bool:
        """Whether a key is one of these, in a time that says nothing of them."""
        digest = hashlib.sha256(key.strip()).digest()
        # Every key is compared, to its last byte.
        return sum(hmac.compare_digest(digest, one) for one in self._digests) > 0


def read_keys(file: Path) -> tuple[bytes, ...]:
    """Read API keys, one a line, so that a new one can be handed out before the old one goes.

    Returns:
        The SHA-256 digest of each: all are of one length, whatever the keys are.

    Raises:
        InputError: the file cannot be read, is open to others, holds no key, or one that is short.
    """
    try:
        with file.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            lines = opened.read(_LARGEST_FILE).removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}; give the file that holds the API keys") from error
    if os.name == "posix" and stat.S_ISREG(mode) and mode & _OTHERS:
        raise InputError(
            f"{file}: must be closed to other users, since it holds API keys, got mode {stat.S_IMODE(mode):o}; "
            f"chmod 600 {file}"
        )
    keys = [line.strip() for line in lines if line.strip()]
    if not keys or min(map(len, keys)) < SHORTEST_KEY:
        got = f"a key of {min(map(len, keys))}" if keys else "nothing"
        raise InputError(
            f"{file}: must hold API keys of {SHORTEST_KEY} characters or more, one a line, got {got}; "
            "make one with: openssl rand -hex 32"
        )
    return tuple(hashlib.sha256(key).digest() for key in keys)


@dataclass
class _Tries:
    count: int = 0
    last: float = 0.0
    waiting: int = 0


class WrongKeys:
    """Wrong keys by client address: answers to them slow down, and the log tells of them.

    Right keys are never slowed, since many clients may share the address of a proxy.

    Args:
        addresses: how many are remembered; those seen least recently are forgotten.
        seconds: longest wait before an answer.
    """

    FREE = 3
    """Wrong keys that are answered at once."""
    WAITING = 16
    """Answers of one address that may wait at a time."""
    FORGOTTEN = 60.0
    """Seconds without a wrong key until an address starts anew."""

    def __init__(self, addresses: int = 4096, seconds: float = 1.0) -> None:
        self._most, self._seconds = addresses, seconds
        self._tries: OrderedDict[str, _Tries] = OrderedDict()
        self._untold = 0
        self._told = -1.0

    def __len__(self) -> int:
        """Count the remembered addresses."""
        return len(self._tries)

    def note(self, client: str) -> float | None:
        """Count a wrong key.

        Returns:
            Seconds to wait before it is refused; None where too many wait, so that the connection is to be closed.
        """
        now, address = monotonic(), _network(client)
        tries = self._tries.pop(address, None)
        if tries is None or (now - tries.last > self.FORGOTTEN and not tries.waiting):
            tries = _Tries()
        self._tries[address] = tries
        if len(self._tries) > self._most:
            self._tries.popitem(last=False)
        tries.count, tries.last = tries.count + 1, now
        self._untold += 1
        if now - self._told >= 1:
            log.warning("%d requests with a wrong API key, the last one from %s", self._untold, address)
            self._untold, self._told = 0, now
        if tries.waiting >= self.WAITING:
            return None
        return min(self._seconds, 0.05 * 2 ** min(tries.count - self.FREE, 10)) if tries.count > self.FREE else 0.0

    def wait(self, client: str, more: int) -> None:
        """Count answers that begin (1) or end (-1) to wait."""
        tries = self._tries.get(_network(client))
        if tries is not None:
            tries.waiting += more


def _network(client: str) -> str:
    """Name whom an address belongs to: of IPv6, one client has 2^64 of them."""
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return "an unknown address"
    if isinstance(address, ipaddress.IPv6Address) and not address.is_loopback:
        mapped = address.ipv4_mapped
        return str(mapped or ipaddress.ip_network((address, 64), strict=False))
    return str(address)
