"""Cache of encoded tables: Arrow files on disk, each verified by a digest of its content."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from cflightning.data.ids import IdColumn, Ids
from cflightning.data.sources.arrow_types import to_numpy
from cflightning.data.table import Origin, RatingTable, has_duplicates
from cflightning.errors import CFLightningError
from cflightning.utils.files import atomic_write

log = logging.getLogger(__name__)

VERSION = 5
"""Version of the readers and of the file format; raise it when the same source would give another table."""
SMALLEST = 1_000_000
"""Bytes of a source below which it is not cached."""
LARGEST = 20_000_000_000
"""Maximum bytes of all cached files; the least recently used are removed first."""
_BLOCK = 1 << 20
_SEAL_BYTES = 32
_THREADS = min(4, os.cpu_count() or 1)


class Key(NamedTuple):
    """Identity of the source of a table.

    Attributes:
        name: Digest of the source files and reader options; the name of the cached file.
        marks: Device, inode, size and times of every source file when hashing began.
    """

    name: str
    marks: tuple[tuple[int, ...], ...]


def read_through(
    folder: Path, sources: Sequence[Path], options: Mapping[str, object], path: Path, read: Callable[[], RatingTable]
) -> RatingTable:
    """Return a table from the cache, or read it and cache it.

    A table is cached only if its source files are the same before and after reading.

    Args:
        folder: Folder of the cache.
        sources: Files that `read` may open.
        options: Options of the reader.
        path: Current path of the source.
        read: Reads the source.
    """
    before = key(sources, options)
    if before is None:
        return read()
    table = load(folder, before.name, path)
    if table is not None:
        return table
    table = read()
    if key(sources, options) != before:
        log.warning("%s: changed while it was read; read it again when nothing writes to it", path)
        return table
    return save(folder, before.name, table, path)


def key(sources: Iterable[Path], options: Mapping[str, object]) -> Key | None:
    """Hash source files and the options of their reader.

    Returns:
        The key, or None if the source is small or cannot be read.
    """
    digest = hashlib.sha256(json.dumps([VERSION, options], sort_keys=True).encode())
    total, marks = 0, []
    try:
        for source in sources:
            with open(source, "rb") as file:
                status = os.fstat(file.fileno())
                marks.append((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
                total += status.st_size
                digest.update(json.dumps([source.name, status.st_size]).encode())
                digest.update(_digest(file.fileno(), status.st_size))
    except OSError:
        return None
    return Key(digest.hexdigest()[:40], tuple(marks)) if total >= SMALLEST else None


def load(folder: Path, name: str, path: Path) -> RatingTable | None:
    """Return a cached table, or None if there is none or its file is damaged.

    The file is read into memory and verified there, since a memory-mapped file could change afterwards.

    Args:
        folder: Folder of the cache.
        name: Name from `key`.
        path: Current path of the source, after which the table is named.
    """
    cached_file = folder / f"{name}.arrow"
    try:
        content = _verified(cached_file, name)
        with pa.ipc.open_file(pa.BufferReader(content)) as file:
            table = _unpack(file.read_all(), path)
        os.utime(cached_file)  # marks it as recently used
    except FileNotFoundError:
        return None
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError, CFLightningError) as error:
        log.info("%s: the cached columns cannot be used (%s) and are read again", cached_file, error)
        return None
    log.info("%s: columns from the cache, %s", table.name, folder)
    return table


def save(folder: Path, name: str, table: RatingTable, path: Path) -> RatingTable:
    """Cache a table; failure to write is logged, not raised.

    Args:
        folder: Folder of the cache.
        name: Name from `key`.
        table: The table.
        path: Current path of the source.

    Returns:
        The table with its attribute `unique` set.
    """
    table = replace(table, unique=not has_duplicates(table))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        packed = _pack(table, path)
        with atomic_write(folder / f"{name}.arrow", "w+b", private=True) as out:
            with pa.ipc.new_file(out, packed.schema) as writer:
                writer.write_table(packed)
            out.flush()
            out.write(_seal(name, _digest(out.fileno(), out.tell())))
        _trim(folder)
    except OSError as error:
        log.info("%s: the columns cannot be kept for the next time (%s)", folder, error)
    return table


def _verified(cached_file: Path, name: str) -> pa.Buffer:
    """Read a cached file once and verify the digest at its end.

    Raises:
        OSError: The file cannot be read, is a link, or belongs to another user.
        ValueError: The digest does not match.
    """
    handle = os.open(cached_file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("it is not a regular file")
        if hasattr(os, "geteuid") and status.st_uid != os.geteuid():
            raise OSError(f"it belongs to another user, number {status.st_uid}")
        size = status.st_size - _SEAL_BYTES
        if size < 0:
            raise ValueError(f"it has {status.st_size} bytes")
        content = pa.allocate_buffer(size)
        if _seal(name, _digest(handle, size, content)) != os.pread(handle, _SEAL_BYTES, size):
            raise ValueError("its content does not match its digest")
        return content
    finally:
        os.close(handle)


def _seal(name: str, digest: bytes) -> bytes:
    """Return the last bytes of a cached file: a digest of its name and content."""
    return hashlib.sha256(name.encode() + digest).digest()


def _digest(handle: int, size: int, into: pa.Buffer | None = None) -> bytes:
    """Hash the first bytes of an open file in parallel: SHA-256 over the SHA-256 of each block.

    Args:
        handle: File descriptor.
        size: Bytes to hash.
        into: Writable buffer of that size, filled with the hashed bytes, or None.
    """
    target = None if into is None else memoryview(into)

    def block(start: int) -> bytes:
        length = min(_BLOCK, size - start)
        view = memoryview(bytearray(length)) if target is None else target[start : start + length]
        done = 0
        while done < length and (got := os.preadv(handle, [view[done:]], start + done)):
            done += got
        return hashlib.sha256(view[:done]).digest()

    with ThreadPoolExecutor(max_workers=_THREADS) as pool:
        return hashlib.sha256(b"".join(pool.map(block, range(0, size, _BLOCK)))).digest()


def _trim(folder: Path) -> None:
    """Remove the least recently used files until the rest fits."""
    files = sorted(folder.glob("*.arrow"), key=lambda path: path.stat().st_mtime, reverse=True)
    total = 0
    for path in files:
        total += path.stat().st_size
        if total > LARGEST and path != files[0]:
            path.unlink(missing_ok=True)


def _anchor(path: Path, name: str) -> tuple[str, str]:
    """Split the name of a table into its anchor, `folder` or `path` of the source, and the rest.

    The same content may later be read from another place, so the name is stored relative to it.
    """
    for anchor, start in (("folder", _folder(path)), ("path", path)):
        if name.startswith(str(start)):
            return anchor, name.removeprefix(str(start))
    return "path", ""


def _folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _pack(table: RatingTable, path: Path) -> pa.Table:
    """Convert to an Arrow table: dictionary columns for users and items, plain columns for the rest."""
    columns: dict[str, pa.Array] = {}
    for side, column in (("user", table.user), ("item", table.item)):
        values = pa.array(column.ids.values, pa.int64() if column.ids.kind == "int64" else pa.string())
        columns[side] = pa.DictionaryArray.from_arrays(pa.array(column.codes, pa.int32()), values)
    for role in ("rating", "weight", "timestamp"):
        if (values := getattr(table, role)) is not None:
            columns[role] = pa.array(values)
    if table.test_rows is not None:
        columns["test"] = pa.array(table.test_rows.astype(np.uint8))
    about = {
        "name": _anchor(path, table.name),
        "unique": table.unique,
        "titles": list(table.titles.items()),
        "categories": list(table.categories.items()),
        "origin": None if table.origin is None else vars(table.origin),
    }
    return pa.table(columns).replace_schema_metadata({"cflightning": json.dumps(about)})


def _unpack(packed: pa.Table, path: Path) -> RatingTable:
    """Invert `_pack` without copying columns; malformed content raises."""
    packed.validate()
    about = json.loads(packed.schema.metadata[b"cflightning"])
    anchor, rest = map(str, about["name"])
    origin = about["origin"]

    def column(name: str) -> pa.Array:
        [chunk] = packed[name].chunks
        if chunk.null_count:
            raise ValueError(f"column {name} has missing values")
        return chunk

    def plain(name: str, dtype: type) -> np.ndarray | None:
        if name not in packed.column_names:
            return None
        values = to_numpy(column(name))
        if values.dtype != dtype:
            raise TypeError(f"column {name} is {values.dtype}")
        return values

    def ids(name: str) -> IdColumn:
        coded = column(name)
        codes, values = to_numpy(coded.indices), coded.dictionary
        if codes.dtype != np.int32:
            raise TypeError(f"column {name} is {codes.dtype}")
        distinct = to_numpy(values) if values.type == pa.int64() else np.array(values.to_pylist(), dtype=object)
        if len(codes) and not 0 <= codes.min() <= codes.max() < len(distinct):
            raise ValueError(f"column {name} has an index beyond its ids")
        return IdColumn(Ids(distinct), codes)

    test = plain("test", np.uint8)
    return RatingTable(
        ids("user"),
        ids("item"),
        rating=plain("rating", np.float32),
        weight=plain("weight", np.float32),
        timestamp=plain("timestamp", np.int64),
        name=os.path.normpath(f"{_folder(path) if anchor == 'folder' else path}{rest}"),
        titles={key: str(title) for key, title in about["titles"]},
        categories={key: tuple(map(str, names)) for key, names in about["categories"]},
        test_rows=None if test is None else test.astype(bool),
        unique=bool(about["unique"]),
        origin=None
        if origin is None
        else Origin(
            {str(role): str(name) for role, name in origin["columns"].items()},
            tuple(map(str, origin["unread"])),
            tuple(map(str, origin["notes"])),
        ),
    )
