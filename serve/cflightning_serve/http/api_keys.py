"""API keys: the key file, and throttling of clients that send wrong keys."""

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

MIN_KEY_LENGTH = 16
"""Characters; keys are generated, not thought up."""
_MAX_FILE_SIZE = 1 << 20
"""Bytes of a key file that are read."""
_OTHER_USERS = stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP
"""Mode bits that a key file must not have."""


class ApiKeys:
    """The API keys of a server, kept as digests.

    Args:
        file: key file, one key a line; None for a server without keys.

    Raises:
        InputError: the file cannot be read, is accessible to other users, is empty, or has a key that is too short.
    """

    def __init__(self, file: str | os.PathLike[str] | None = None) -> None:
        self._file = None if file is None else Path(file)
        self._digests: tuple[bytes, ...] = ()
        self.reload()

    def __bool__(self) -> bool:
        """Return whether requests need a key."""
        return bool(self._digests)

    def reload(self) -> None:
        """Read the file again; the previous keys stay in use where that fails.

        Raises:
            InputError: see the class.
        """
        if self._file is not None:
            self._digests = read_api_keys(self._file)

    def accepts(self, key: bytes) -> bool:
        """Return whether a key is valid. The time taken does not depend on the valid keys."""
        digest = hashlib.sha256(key.strip()).digest()
        # The sum compares with every key, each to its last byte.
        return sum(hmac.compare_digest(digest, valid) for valid in self._digests) > 0


def read_api_keys(file: Path) -> tuple[bytes, ...]:
    """Read API keys, one a line; several keys allow a new one to be handed out before the old one is withdrawn.

    Returns:
        The SHA-256 digest of each key: equal lengths reveal nothing about the keys.

    Raises:
        InputError: the file cannot be read, is accessible to other users, is empty, or has a key that is too short.
    """
    try:
        with file.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            lines = stream.read(_MAX_FILE_SIZE).removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}; name the file with the API keys") from error
    if os.name == "posix" and stat.S_ISREG(mode) and mode & _OTHER_USERS:
        raise InputError(
            f"{file}: must not be accessible to other users, since it holds API keys, got mode {stat.S_IMODE(mode):o}; "
            f"chmod 600 {file}"
        )
    keys = [line.strip() for line in lines if line.strip()]
    if not keys or min(map(len, keys)) < MIN_KEY_LENGTH:
        got = f"a key of {min(map(len, keys))}" if keys else "none"
        raise InputError(
            f"{file}: must hold API keys of {MIN_KEY_LENGTH} characters or more, one a line, got {got}; "
            "make one with: openssl rand -hex 32"
        )
    return tuple(hashlib.sha256(key).digest() for key in keys)


@dataclass
class _WrongKeys:
    """Wrong keys of one address: their count, the time of the last one, and responses that are being delayed."""

    count: int = 0
    last: float = 0.0
    delayed: int = 0


class WrongKeyThrottle:
    """Delays responses to wrong API keys, by client address, and logs the attempts.

    Valid keys are never delayed, since many clients may share the address of a proxy.

    Args:
        max_addresses: addresses that are remembered; the least recently seen is forgotten first.
        max_delay: seconds of the longest delay.
    """

    UNDELAYED = 3
    """Wrong keys that are answered at once."""
    MAX_DELAYED = 16
    """Responses to one address that may be delayed at the same time."""
    RESET_AFTER = 60.0
    """Seconds without a wrong key after which an address starts again at zero."""

    def __init__(self, max_addresses: int = 4096, max_delay: float = 1.0) -> None:
        self._max_addresses, self._max_delay = max_addresses, max_delay
        self._addresses: OrderedDict[str, _WrongKeys] = OrderedDict()
        self._unlogged = 0
        self._logged_at = -1.0

    def __len__(self) -> int:
        """Return the number of remembered addresses."""
        return len(self._addresses)

    def record(self, client: str) -> float | None:
        """Count a wrong key.

        Returns:
            Seconds to delay the response; None where too many are delayed already, so the connection should be closed.
        """
        now, address = monotonic(), _network(client)
        keys = self._addresses.pop(address, None)
        if keys is None or (now - keys.last > self.RESET_AFTER and not keys.delayed):
            keys = _WrongKeys()
        self._addresses[address] = keys
        if len(self._addresses) > self._max_addresses:
            self._addresses.popitem(last=False)
        keys.count, keys.last = keys.count + 1, now
        self._unlogged += 1
        if now - self._logged_at >= 1:
            log.warning("%d requests with a wrong API key, the last one from %s", self._unlogged, address)
            self._unlogged, self._logged_at = 0, now
        if keys.delayed >= self.MAX_DELAYED:
            return None
        if keys.count <= self.UNDELAYED:
            return 0.0
        return min(self._max_delay, 0.05 * 2.0 ** min(keys.count - self.UNDELAYED, 10))

    def add_delayed(self, client: str, change: int) -> None:
        """Count a response whose delay begins (``change`` 1) or ends (-1)."""
        keys = self._addresses.get(_network(client))
        if keys is not None:
            keys.delayed += change


def _network(client: str) -> str:
    """Return the address or network of a client: with IPv6, one client usually has a whole /64 network."""
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return "an unknown address"
    if isinstance(address, ipaddress.IPv6Address) and not address.is_loopback:
        return str(address.ipv4_mapped or ipaddress.ip_network((address, 64), strict=False))
    return str(address)
