"""What a server is told when it starts."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from cflightning_serve.errors import InputError
from cflightning_serve.trust import Trust

SHORTEST_KEY = 16
"""Characters; a key is made by a program, not thought of by a person."""
LONGEST_POLL = 86_400


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
        keys: digests of the API keys; none lets everybody in.
        limits: what one request may ask for.
        poll: seconds between two looks at the folder; 0 looks only when told to.
        threads: of onnxruntime inside one call.
        verify: whether the digests of a bundle's files are compared before it is used.
        mapped: whether tables are mapped from the folder instead of kept in memory.
        trust: the digest or the signature that a bundle must have; None for any.
        load_seconds: for loading a bundle and asking it once; after that it is given up.
    """

    bundle: Path
    name: str = "cflightning"
    keys: tuple[bytes, ...] = ()
    limits: Limits = field(default_factory=Limits)
    poll: float = 2.0
    threads: int = 1
    verify: bool = True
    mapped: bool = False
    trust: Trust | None = None
    load_seconds: float = 300.0

    def __post_init__(self) -> None:
        if not 0 <= self.poll <= LONGEST_POLL:
            raise InputError(f"poll: must be from 0 to {LONGEST_POLL:,} seconds, got {self.poll}")
        if not 0 < self.load_seconds <= LONGEST_POLL:
            raise InputError(f"load-seconds: must be above 0, up to {LONGEST_POLL:,}, got {self.load_seconds}")
        if not re.fullmatch(r"[A-Za-z0-9._-]+", self.name):
            raise InputError(
                f"name: must be of letters, digits, dots, - and _, as it stands in routes, got {self.name!r}"
            )


def read_keys(file: str | os.PathLike[str]) -> tuple[bytes, ...]:
    """Read API keys, one a line, so that a new one can be handed out before the old one goes.

    Returns:
        The SHA-256 digest of each: all are of one length, whatever the keys are.

    Raises:
        InputError: the file cannot be read, holds no key, or one that is short.
    """
    try:
        lines = Path(file).read_bytes().split(b"\n")
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}; give the file that holds the API keys") from error
    keys = [line.strip() for line in lines if line.strip()]
    if not keys or min(map(len, keys)) < SHORTEST_KEY:
        got = f"a key of {min(map(len, keys))}" if keys else "nothing"
        raise InputError(
            f"{file}: must hold API keys of {SHORTEST_KEY} characters or more, one a line, got {got}; "
            "make one with: openssl rand -hex 32"
        )
    return tuple(hashlib.sha256(key).digest() for key in keys)
