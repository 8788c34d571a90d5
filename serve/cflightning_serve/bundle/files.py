"""Files of a bundle: read strictly, and refused where something else lies in their place."""

import codecs
import hashlib
import json
import mmap
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from cflightning_serve.bundle.strict_json import parse_incrementally
from cflightning_serve.errors import BundleError

AGAIN = "copy or export the bundle again"
"""What to do about a damaged file."""
_LARGEST = 16 << 20
"""Bytes of a manifest, which nothing vouches for before it is read."""
_PLAIN, _RATIO = 1 << 24, 64
"""What a packed file may unpack to: so many bytes, and so many for each packed one."""
_BLOCK = 4 << 20
"""Bytes that are read and digested in one go."""
_PAGED = 1 << 20
"""Bytes from which a file is kept in pages of its own, which go back to the system."""
_OPENING = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
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


class FileEntry(NamedTuple):
    """The length in bytes of a file, and its SHA-256 digest in hex, as a manifest has them."""

    bytes: int
    sha256: str


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """Open a plain file, never a link or a pipe, and yield its descriptor.

    Raises:
        BundleError: something else lies there, or it cannot be read.
    """
    refuse_unless_plain_file(path)
    with readable(path):
        descriptor = os.open(path, _OPENING)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # it was exchanged in this very moment
                raise BundleError(f"{path}: must be a file of the bundle, is no file; {AGAIN}")
            yield descriptor
        finally:
            os.close(descriptor)


def read_verified(
    path: Path,
    entry: FileEntry,
    *,
    digest: bool = True,
    mapped: bool = False,
    keep: bool = True,
    check: Callable[[], None] = lambda: None,
) -> memoryview:
    """Read a file through one descriptor and hold it against its entry: the bytes returned are those digested.

    Args:
        path: of the file.
        entry: what the manifest says of it.
        digest: whether to compare the digest; the length is always compared.
        mapped: whether to map the file into memory instead: whoever changes it later changes the bytes.
        keep: whether the bytes are wanted; else an empty view is returned.
        check: called between blocks; may raise.

    Raises:
        BundleError: the file is missing, is a symbolic link, differs from the entry, or does not fit into memory.
    """
    with opened(path) as descriptor:
        size = os.fstat(descriptor).st_size
        if size != entry.bytes:
            raise _other_length(path, entry, size)
        mapped = mapped and size > 0
        if mapped:
            kept = memoryview(mmap.mmap(descriptor, size, access=mmap.ACCESS_READ))
        else:
            kept = _memory(path, size if keep else min(size, _BLOCK))
        sha256 = hashlib.sha256()
        for begin in range(0, size, _BLOCK):
            check()
            block = kept[begin : begin + _BLOCK] if keep or mapped else kept[: size - begin]
            if not mapped:
                _fill(path, descriptor, block, entry)
            if digest:
                sha256.update(block)
    if digest and sha256.hexdigest() != entry.sha256:
        raise BundleError(f"{path}: its sha256 is not the manifest's: damaged or edited; {AGAIN}")
    return kept if keep else memoryview(b"")


def _memory(path: Path, size: int) -> memoryview:
    """So many bytes of memory that nothing else has."""
    if size < _PAGED:
        return memoryview(bytearray(size))
    try:
        if not hasattr(mmap, "MAP_PRIVATE"):
            return memoryview(mmap.mmap(-1, size))
        pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError, MemoryError, ValueError) as error:
        raise BundleError(
            f"{path}: needs {size:,} bytes of memory, which are not to be had; serve it where there are more, "
            "or map its weights"
        ) from error
    if hasattr(mmap, "MADV_HUGEPAGE"):  # fewer and larger pages: tables are read as quickly as mapped ones
        with suppress(OSError):  # of a system that has none
            pages.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(pages)


def _fill(path: Path, descriptor: int, block: memoryview, entry: FileEntry) -> None:
    at = 0
    while at < len(block):
        count = os.readv(descriptor, [block[at:]]) if hasattr(os, "readv") else _read_into(descriptor, block[at:])
        if not count:
            raise _other_length(path, entry, os.fstat(descriptor).st_size)
        at += count


def _read_into(descriptor: int, block: memoryview) -> int:
    data = os.read(descriptor, len(block))
    block[: len(data)] = data
    return len(data)


def _other_length(path: Path, entry: FileEntry, size: int) -> BundleError:
    return BundleError(f"{path}: must hold {entry.bytes:,} bytes, holds {size:,}: truncated or replaced; {AGAIN}")


def read_object(path: Path) -> dict[str, Any]:
    """Parse a file that must be one JSON object; see :func:`parse_json`."""
    return parse_object(path, read_bytes(path))


def read_bytes(path: Path, most: int = _LARGEST) -> bytes:
    """Read a file that nothing vouches for yet.

    Raises:
        BundleError: it cannot be read, or holds more bytes than ``most``.
    """
    with opened(path) as descriptor, os.fdopen(descriptor, "rb", closefd=False) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise BundleError(f"{path}: must be a file of a few kB, holds more than {most:,} bytes; {AGAIN}")
    return data


def parse_object(path: Path, data: bytes) -> dict[str, Any]:
    """Parse bytes that must be one JSON object; see :func:`parse_json`."""
    raw = parse_json(path, data)
    if type(raw) is not dict:
        raise BundleError(f"{path}: must be one JSON object, is of type {json_name(raw)}; {AGAIN}")
    return raw


def parse_json(path: Path, data: bytes, pause: Callable[[], None] | None = None) -> Any:
    """Parse UTF-8 JSON strictly: ``NaN``, ``Infinity`` and halves of surrogate pairs are not JSON.

    Args:
        path: where the bytes lay, for messages.
        data: of the file.
        pause: called again and again, so that other threads run meanwhile; may raise. None parses in one go.

    Raises:
        BundleError: they are not JSON.
    """
    try:
        if pause is None:
            return _parse_text(data.decode("utf-8"))
        decoder = codecs.getincrementaldecoder("utf-8")()
        parts = []
        for begin in range(0, len(data), _PAGED):
            parts.append(decoder.decode(data[begin : begin + _PAGED]))
            pause()
        return parse_incrementally("".join([*parts, decoder.decode(b"", final=True)]), _parse_text, pause)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: must be UTF-8 JSON, is not: {str(error)[:200]}; {AGAIN}") from error


def _parse_text(text: str) -> Any:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not JSON")

    value = json.loads(text, parse_constant=refuse)
    if "\\u" in text:  # else there is no way to write half of a surrogate pair
        json.dumps(value, ensure_ascii=False).encode()
    return value


def decompress(path: Path, data: bytes) -> bytes:
    """Return the bytes of a file, unpacked where its name ends in ``.gz``.

    A packed file is one gzip member that unpacks to no more than readers promise to take: a few kB may hold gigabytes.

    Raises:
        BundleError: it is no such file.
    """
    if path.suffix != ".gz":
        return data
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
