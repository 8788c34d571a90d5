"""Safe reading of a bundle's files: regular files only, verified lengths and digests, bounded sizes."""

import hashlib
import mmap
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from cflightning_serve.errors import BundleError

REMEDY = "copy or export the bundle again"
"""Advice of messages about a damaged file."""
MAX_UNVERIFIED_BYTES = 16 << 20
"""Size limit of a file that is read before any digest of it is known, such as the manifest, in bytes."""
MAX_PLAIN_BYTES, MAX_COMPRESSION_RATIO = 1 << 24, 64
"""Limit of a decompressed file: this many bytes, plus this many for each compressed byte."""
BLOCK_BYTES = 4 << 20
"""Size of the blocks in which files are read and digested, in bytes."""
MIN_MAPPED_BYTES = 1 << 20
"""Size from which a file is kept in memory pages of its own, which return to the system when released, in bytes."""
_OPEN_FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))


class FileEntry(NamedTuple):
    """Length in bytes and SHA-256 digest (hex) of a file, as listed in the manifest."""

    bytes: int
    sha256: str


def locate_folder(folder: Path) -> Path:
    """Return the folder of a bundle; if an export was interrupted while replacing it, the folder of the old bundle.

    File systems that cannot exchange two folders in one step rename the old bundle first (BUNDLE.md). The next export
    moves it back; until then readers use it where it is.
    """
    name = re.compile(rf"\.{re.escape(folder.name)}-[0-9a-f]{{16}}\.old")
    try:
        if folder.exists() or folder.is_symlink():
            return folder
        replaced = [path for path in folder.parent.iterdir() if name.fullmatch(path.name) and path.is_dir()]
        return max(replaced, key=lambda path: path.stat().st_mtime_ns, default=folder)
    except OSError:
        return folder


@contextmanager
def os_errors_as_bundle_errors(path: Path) -> Iterator[None]:
    """Convert errors of the file system into ``BundleError``."""
    try:
        yield
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}; check its name and permissions") from error


@contextmanager
def open_regular_file(path: Path) -> Iterator[int]:
    """Open a regular file, never a symbolic link or a pipe, and yield its descriptor.

    Raises:
        BundleError: the path is not a regular file, or it cannot be read.
    """
    with os_errors_as_bundle_errors(path):
        if path.is_symlink():
            raise BundleError(f"{path}: must be a regular file inside the bundle, is a symbolic link; {REMEDY}")
        if not path.is_file():
            got = "is not a regular file" if path.exists() else "is missing"
            raise BundleError(f"{path}: must be a file of the bundle, {got}; {REMEDY}")
        descriptor = os.open(path, _OPEN_FLAGS)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # it may have been replaced since the check above
                raise BundleError(f"{path}: must be a file of the bundle, is not a regular file; {REMEDY}")
            yield descriptor
        finally:
            os.close(descriptor)


def read_bytes(path: Path, limit: int = MAX_UNVERIFIED_BYTES) -> bytes:
    """Read a small file whose digest is not known yet.

    Raises:
        BundleError: the file cannot be read, or is larger than ``limit`` bytes.
    """
    with open_regular_file(path) as descriptor, os.fdopen(descriptor, "rb", closefd=False) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise BundleError(f"{path}: must be a file of a few kB, is larger than {limit:,} bytes; {REMEDY}")
    return data


def read_verified(
    path: Path,
    entry: FileEntry,
    *,
    digest: bool = True,
    mapped: bool = False,
    keep: bool = True,
    check: Callable[[], None] = lambda: None,
) -> memoryview:
    """Read a file through one descriptor and compare it with its manifest entry; the digested bytes are returned.

    Args:
        path: the file.
        entry: its expected length and digest.
        digest: whether to compare the digest; the length is always compared.
        mapped: whether to memory-map the file instead of copying it. Later changes of the file then change the bytes.
        keep: whether to return the bytes; if not, an empty view is returned.
        check: called between blocks; may raise.

    Raises:
        BundleError: the file is missing, is a symbolic link, differs from its entry, or does not fit into memory.
    """
    with open_regular_file(path) as descriptor:
        size = os.fstat(descriptor).st_size
        if size != entry.bytes:
            raise _wrong_length(path, entry, size)
        mapped = mapped and size > 0
        if mapped:
            data = memoryview(mmap.mmap(descriptor, size, access=mmap.ACCESS_READ))
        else:
            data = _allocate(path, size if keep else min(size, BLOCK_BYTES))
        sha256 = hashlib.sha256()
        for begin in range(0, size, BLOCK_BYTES):
            check()
            block = data[begin : begin + BLOCK_BYTES] if keep or mapped else data[: size - begin]
            if not mapped:
                _fill(path, descriptor, block, entry)
            if digest:
                sha256.update(block)
    if digest and sha256.hexdigest() != entry.sha256:
        raise BundleError(f"{path}: its sha256 differs from the manifest's: damaged or edited; {REMEDY}")
    return data if keep else memoryview(b"")


def _allocate(path: Path, size: int) -> memoryview:
    """Allocate ``size`` bytes; large blocks get private memory pages."""
    if size < MIN_MAPPED_BYTES:
        return memoryview(bytearray(size))
    try:
        if not hasattr(mmap, "MAP_PRIVATE"):
            return memoryview(mmap.mmap(-1, size))
        pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError, MemoryError, ValueError) as error:
        raise BundleError(
            f"{path}: needs {size:,} bytes of memory, which are not available; use a machine with more memory, "
            "or map the weights"
        ) from error
    if hasattr(mmap, "MADV_HUGEPAGE"):  # large pages: as fast as a memory-mapped file
        with suppress(OSError):  # not supported by this system
            pages.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(pages)


def _fill(path: Path, descriptor: int, block: memoryview, entry: FileEntry) -> None:
    """Read exactly ``len(block)`` bytes."""
    done = 0
    while done < len(block):
        rest = block[done:]
        if hasattr(os, "readv"):
            count = os.readv(descriptor, [rest])
        else:
            data = os.read(descriptor, len(rest))
            count = len(data)
            rest[:count] = data
        if not count:
            raise _wrong_length(path, entry, os.fstat(descriptor).st_size)
        done += count


def _wrong_length(path: Path, entry: FileEntry, size: int) -> BundleError:
    return BundleError(f"{path}: must have {entry.bytes:,} bytes, has {size:,}: truncated or replaced; {REMEDY}")


def decompress(path: Path, data: bytes) -> bytes:
    """Decompress a file whose name ends in ``.gz``; return any other unchanged.

    A compressed file is one gzip member of bounded expansion: a few kB could otherwise expand to gigabytes.

    Raises:
        BundleError: the data is not a complete gzip file, or it expands beyond the limit.
    """
    if path.suffix != ".gz":
        return data
    limit = MAX_PLAIN_BYTES + MAX_COMPRESSION_RATIO * len(data)
    gzip = zlib.decompressobj(wbits=31)
    try:
        plain = gzip.decompress(data, limit + 1)
    except zlib.error as error:
        raise BundleError(f"{path}: must be a gzip file, is not: {error}; {REMEDY}") from error
    if len(plain) > limit:
        raise BundleError(
            f"{path}: must decompress to at most {limit:,} bytes, {MAX_COMPRESSION_RATIO} for each compressed one; "
            f"{REMEDY}"
        )
    if not gzip.eof or gzip.unused_data:
        got = "has data after its end" if gzip.eof else "is truncated"
        raise BundleError(f"{path}: must be one complete gzip file, {got}; {REMEDY}")
    return plain
