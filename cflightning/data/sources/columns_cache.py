"""Tables that were read before, as columns on disk: checked, encoded and memory-mapped."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cflightning.data.ids import IdColumn, Ids
from cflightning.data.sources.columns import to_numpy
from cflightning.data.table import RatingTable, has_duplicates
from cflightning.errors import CFLightningError
from cflightning.files import replacing

log = logging.getLogger(__name__)

VERSION = 3
"""Of the readers and of the file: to be raised whenever the same source would give another table."""
SMALLEST = 1_000_000
"""Bytes of source below which reading is quicker than it is worth a file."""
LARGEST = 20_000_000_000
"""Bytes that all files together may take; those not used for longest go first."""


def key(sources: Iterable[Path], options: dict[str, Any]) -> str | None:
    """Name of the cached table, from the content of its source files and the options of its reader.

    Returns:
        A digest, or None for a source that is small or cannot be read (its reader will say why).
    """
    digest = hashlib.sha256(json.dumps([VERSION, options], sort_keys=True).encode())
    size = 0
    try:
        for source in sources:
            size += source.stat().st_size
            digest.update(json.dumps([source.name, source.stat().st_size]).encode())
            with open(source, "rb") as file:
                while chunk := file.read(1 << 22):
                    digest.update(chunk)
    except OSError:
        return None
    return digest.hexdigest()[:40] if size >= SMALLEST else None


def load(folder: Path, name: str, path: Path) -> RatingTable | None:
    """The cached table, its columns memory-mapped; None where there is none that is sound.

    Args:
        folder: of the cache.
        name: from `key`.
        path: where the source lies now; the table is named after it, or after its folder.
    """
    kept = folder / f"{name}.arrow"
    try:
        with pa.memory_map(str(kept)) as mapped, pa.ipc.open_file(mapped) as file:
            table = _unpack(file.read_all(), path)
        os.utime(kept)  # it was used
    except FileNotFoundError:
        return None
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError, CFLightningError) as error:
        log.info("%s: the cached columns cannot be used (%s) and are made anew", kept, error)
        return None
    log.info("%s: columns from the cache, %s", table.name, folder)
    return table


def save(folder: Path, name: str, table: RatingTable, path: Path) -> RatingTable:
    """Write a table for the next time; a cache that cannot be written is no error.

    Args:
        folder: of the cache.
        name: from `key`.
        table: as it was read.
        path: where the source lies.

    Returns:
        The table, which now knows whether its pairs are unique.
    """
    table = replace(table, unique=not has_duplicates(table))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        packed = _pack(table, path)
        with replacing(folder / f"{name}.arrow", "wb") as out, pa.ipc.new_file(out, packed.schema) as writer:
            writer.write_table(packed)
        _trim(folder)
    except OSError as error:
        log.info("%s: the columns cannot be kept for the next time (%s)", folder, error)
    return table


def _trim(folder: Path) -> None:
    """Remove the files that were not used for longest until the rest fits."""
    files = sorted(folder.glob("*.arrow"), key=lambda path: path.stat().st_mtime, reverse=True)
    total = 0
    for path in files:
        total += path.stat().st_size
        if total > LARGEST and path != files[0]:
            path.unlink(missing_ok=True)


def _anchor(path: Path, name: str) -> tuple[str, str]:
    """What a table is named after, which may lie elsewhere next time, and the rest of the name.

    The folder where it can be: whether it is given itself or a file in it, the columns may be the same.
    """
    for anchor, start in (("folder", _folder(path)), ("path", path)):
        if name.startswith(str(start)):
            return anchor, name.removeprefix(str(start))
    return "path", ""


def _folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _pack(table: RatingTable, path: Path) -> Any:
    """As one Arrow table: a dictionary column for each side, plain columns for the rest."""
    columns: dict[str, Any] = {}
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
    }
    return pa.table(columns).replace_schema_metadata({"cflightning": json.dumps(about)})


def _unpack(packed: Any, path: Path) -> RatingTable:
    """Back from `_pack`, without a copy of anything large; whatever is not as it must be raises."""
    packed.validate(full=True)  # codes lie inside their dictionaries, text is UTF-8
    about = json.loads(packed.schema.metadata[b"cflightning"])
    anchor, rest = map(str, about["name"])

    def column(name: str) -> Any:
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
        known = to_numpy(values) if values.type == pa.int64() else np.array(values.to_pylist(), dtype=object)
        return IdColumn(Ids(known), codes)

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
    )
