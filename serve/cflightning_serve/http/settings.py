"""What a server is told when it starts."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from cflightning_serve.bundle.trust import Trust
from cflightning_serve.errors import InputError
from cflightning_serve.http.keys import Keys

LONGEST_POLL = 86_400
_HOST = re.compile(r"\*|(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|\[?[0-9A-Fa-f:.]+\]?")
_ORIGIN = re.compile(r"\*|https?://[A-Za-z0-9._-]+(:[0-9]{1,5})?|https?://\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")


@dataclass(frozen=True)
class Limits:
    """What one request may ask for, and how many may ask at once."""

    body: int = 1 << 20
    """Bytes."""
    ids: int = 10_000
    """Ids in any one list of a request, or elements in any one tensor."""
    k: int = 1_000
    """Length of a list of items."""
    seconds: float = 10.0
    """From the first byte to the last byte of the answer."""
    concurrent: int = 256
    """Requests in work; what comes above is told to try again."""
    connections: int = 1_000
    """Connections; above, the one that has been idle longest is closed."""
    held: int = 1 << 28
    """Bytes of large requests and answers that are held at once."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise InputError(f"limits: {name} must be above 0, got {value}")


@dataclass(frozen=True)
class Settings:
    """How a bundle is served.

    Attributes:
        bundle: folder, looked at again and again: a new bundle there is taken up.
        name: of the model, in the routes of the Open Inference Protocol and in metrics.
        keys: the API keys; none lets everybody in.
        limits: what one request may ask for.
        poll: seconds between two looks at the folder; 0 looks only when told to.
        threads: of onnxruntime inside one call.
        verify: whether the digests of a bundle's files are compared before it is used.
        mapped: whether tables are mapped from the folder instead of kept in memory.
        trust: the digest or the signature that a bundle must have; None for any.
        load_seconds: for loading a bundle and asking it once; after that it is given up.
        hosts: names of this server beside those of loopback; ``*`` stands for any, ``*.example.com`` for a part.
        origins: of pages elsewhere that may read answers, ``https://shop.example``; ``*`` stands for any.
    """

    bundle: Path
    name: str = "cflightning"
    keys: Keys = field(default_factory=Keys)
    limits: Limits = field(default_factory=Limits)
    poll: float = 2.0
    threads: int = 1
    verify: bool = True
    mapped: bool = False
    trust: Trust | None = None
    load_seconds: float = 300.0
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.poll <= LONGEST_POLL:
            raise InputError(f"poll: must be from 0 to {LONGEST_POLL:,} seconds, got {self.poll}")
        if not 0 < self.load_seconds <= LONGEST_POLL:
            raise InputError(f"load-seconds: must be above 0, up to {LONGEST_POLL:,}, got {self.load_seconds}")
        if not re.fullmatch(r"[A-Za-z0-9._-]+", self.name):
            raise InputError(
                f"name: must be of letters, digits, dots, - and _, as it stands in routes, got {self.name!r}"
            )
        for host in self.hosts:
            if not _HOST.fullmatch(host):
                raise InputError(f"allow-host: must be a name or an address without a port, got {host[:60]!r}")
        for origin in self.origins:
            if not _ORIGIN.fullmatch(origin):
                raise InputError(f"cors-origin: must be like https://shop.example, got {origin[:60]!r}")
