"""Files of a bundle: read strictly, and refused where something else lies in their place."""

import hashlib
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from cflightning_serve.errors import BundleError

AGAIN = "copy or export the bundle again"
"""What to do about a damaged file."""
_LARGEST = 16 << 20
"""Bytes of a manifest, which nothing vouches for before it is read."""
_PLAIN, _RATIO = 1 << 24, 64
"""What a packed file may unpack to: so many bytes, and so many for each packed one."""
JSON_NAMES = {dict: "object", list: "array", str: "string", int: "integer", float: "number", type(None): "null"}


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn errors of the file system into ``BundleError``."""
    try:
        yield
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}; check its name and permissions") from error


def refuse_unless_plain_file(path: Path) -> None:
    """Raise ``BundleError`` unless a file lies there itself, not a link to one."""
    with readable(path):
        if path.is_symlink():
            raise BundleError(f"{path}: must be a file of the bundle itself, is a symbolic link; {AGAIN}")
        if not path.is_file():
            got = "is no file" if path.exists() else "is missing"
            raise BundleError(f"{path}: must be a file of the bundle, {got}; {AGAIN}")


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with readable(path), path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_object(path: Path) -> dict[str, Any]:
    """Parse a file that must be one JSON object; see :func:`read_json`."""
    refuse_unless_plain_file(path)
    if path.stat().st_size > _LARGEST:
        raise BundleError(f"{path}: must be a manifest of a few kB, holds {path.stat().st_size:,} bytes; {AGAIN}")
    raw = read_json(path)
    if type(raw) is not dict:
        raise BundleError(f"{path}: must be one JSON object, is of type {json_name(raw)}; {AGAIN}")
    return raw


def read_json(path: Path) -> Any:
    """Parse a UTF-8 JSON file strictly: ``NaN`` and ``Infinity`` are not JSON. One named ``.gz`` is unpacked first.

    Raises:
        BundleError: the file cannot be read or is not JSON, or holds more than its size allows.
    """

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not JSON")

    with readable(path):
        data = path.read_bytes()
    if path.suffix == ".gz":
        data = _unpacked(path, data)
    try:
        return json.loads(data.decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: must be UTF-8 JSON, is not: {error}; {AGAIN}") from error


def _unpacked(path: Path, data: bytes) -> bytes:
    """The one member of a gzip file, no more than readers promise to take: a few kB may unpack to gigabytes."""
    limit = _PLAIN + _RATIO * len(data)
    gzip = zlib.decompressobj(wbits=31)
    try:
        plain = gzip.decompress(data, limit + 1)
    except zlib.error as error:
        raise BundleError(f"{path}: must be packed by gzip, is not: {error}; {AGAIN}") from error
    if len(plain) > limit:
        raise BundleError(f"{path}: must unpack to at most {limit:,} bytes, to {_RATIO} for each packed one; {AGAIN}")
    if not gzip.eof or gzip.unused_data:
        raise BundleError(f"{path}: must be one whole gzip file, {'goes on' if gzip.eof else 'breaks off'}; {AGAIN}")
    return plain


def json_name(value: object) -> str:
    """Name the type of a value as JSON does."""
    return "boolean" if type(value) is bool else JSON_NAMES[type(value)]
