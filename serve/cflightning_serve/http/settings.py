"""Settings of the server, fixed when it starts."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from cflightning_serve.bundle.trust import Trust
from cflightning_serve.errors import InputError
from cflightning_serve.http.api_keys import ApiKeys

_MAX_SECONDS = 86_400
"""Seconds of the longest poll interval and load timeout."""
_HOST = re.compile(r"\*|(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|\[?[0-9A-Fa-f:.]+\]?")
_ORIGIN = re.compile(r"\*|https?://[A-Za-z0-9._-]+(:[0-9]{1,5})?|https?://\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")


@dataclass(frozen=True)
class Limits:
    """Limits of requests and connections."""

    body: int = 1 << 20
    """Bytes of a request body."""
    ids: int = 10_000
    """Ids in one list of a request, or elements of one tensor."""
    k: int = 1_000
    """Length of a top-k list."""
    seconds: float = 10.0
    """Deadline of a request, from its first byte to the last byte of the response."""
    concurrent: int = 256
    """Requests in progress; further ones are answered with 503 and ``Retry-After``."""
    connections: int = 1_000
    """Open connections; at the limit, the one that has been idle longest is closed."""
    cells: int = 1 << 23
    """Cells of the largest table that a graph may compute (users times items, or items times targets), 32 MiB."""
    memory: int = 1 << 28
    """Bytes of large requests and responses that are in memory at the same time."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise InputError(f"limits: {name} must be above 0, got {value}")


@dataclass(frozen=True)
class Settings:
    """Settings of a server.

    Attributes:
        bundle: folder of the bundle; a new bundle in its place is loaded.
        name: name of the model in the routes of the Open Inference Protocol.
        keys: API keys; without any, every client is served.
        limits: limits of requests and connections.
        poll: seconds between two checks of the folder; 0 checks only at SIGHUP.
        threads: threads of onnxruntime inside one call.
        verify: whether the digests of the bundle's files are verified before it is used.
        mapped: whether tables are memory-mapped from the folder instead of read into memory.
        trust: digest or signature that the bundle must have; None accepts any.
        load_seconds: timeout of loading a bundle and running its first request.
        hosts: accepted host names besides those of loopback; ``*`` accepts any, ``*.example.com`` all subdomains.
        origins: origins of web pages that may read responses (CORS), ``https://shop.example``; ``*`` accepts any.
    """

    bundle: Path
    name: str = "cflightning"
    keys: ApiKeys = field(default_factory=ApiKeys)
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
        if not 0 <= self.poll <= _MAX_SECONDS:
            raise InputError(f"poll: must be from 0 to {_MAX_SECONDS:,} seconds, got {self.poll}")
        if not 0 < self.load_seconds <= _MAX_SECONDS:
            raise InputError(f"load-seconds: must be above 0, up to {_MAX_SECONDS:,}, got {self.load_seconds}")
        if not re.fullmatch(r"[A-Za-z0-9._-]+", self.name):
            raise InputError(
                f"name: must be of letters, digits, dots, - and _, since it is part of routes, got {self.name!r}"
            )
        for host in self.hosts:
            if not _HOST.fullmatch(host):
                raise InputError(f"allow-host: must be a name or an address without a port, got {host[:60]!r}")
        for origin in self.origins:
            if not _ORIGIN.fullmatch(origin):
                raise InputError(f"cors-origin: must be like https://shop.example, got {origin[:60]!r}")
