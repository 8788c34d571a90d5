"""Files of recommendations with a row for each user and rank: CSV, or Parquet with pyarrow, joined from parts."""

import csv
import io
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from cflightning_serve.bundle.ids import IdArray
from cflightning_serve.bundle.manifest import IdType
from cflightning_serve.errors import InputError
from cflightning_serve.inference.bulk import TopKLists

COLUMNS = ("user", "rank", "item", "score")
DICTIONARY_COLUMNS = ["user", "rank", "item"]
"""Columns that Parquet encodes by a dictionary; scores rarely repeat and are larger that way."""
SUFFIXES = (".csv", ".parquet")
TEMPORARY_NAME = r"\..+-[0-9a-f]{16}"
"""Regular expression of the names of incomplete files."""


def check_suffix(path: Path) -> None:
    """Refuse an output file that could not be written at the end.

    Raises:
        InputError: the suffix is unknown, or it is Parquet and pyarrow is not installed.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(f"--out: must end in {' or '.join(SUFFIXES)}, got {path.name!r}")
    if path.suffix == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise InputError(
                "--out: a Parquet file needs pyarrow: pip install 'cflightning-serve[parquet]', or write .csv"
            ) from error


def write_part(path: Path, users: IdArray, lists: TopKLists, id_types: tuple[IdType, IdType]) -> None:
    """Write the top-k lists of some users, atomically.

    Args:
        path: the part; its suffix determines the format. A part in CSV has no header.
        users: ids [n].
        lists: top-k lists of these users.
        id_types: types of user and item ids.
    """
    user = np.repeat(users, lists.counts)
    rank = np.arange(1, len(user) + 1) - np.repeat(np.cumsum(lists.counts) - lists.counts, lists.counts)
    with atomic_write(path) as out:
        if path.suffix == ".parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            types = [pa.int64() if id_type == "int64" else pa.string() for id_type in id_types]
            columns = [pa.array(user, types[0]), pa.array(rank, pa.int32()), pa.array(lists.items, types[1])]
            table = pa.table([*columns, pa.array(lists.scores)], names=COLUMNS)
            pq.write_table(table, out, use_dictionary=DICTIONARY_COLUMNS)
            return
        scores = lists.scores.astype(str)  # the fewest digits that identify each float32
        rows = zip(user.tolist(), rank.tolist(), lists.items.tolist(), scores.tolist(), strict=True)
        out.write(_to_csv(rows))


def join_parts(parts: Sequence[Path], target: Path) -> None:
    """Concatenate all parts into one file, atomically; the incomplete file is in the folder of the parts."""
    with atomic_write(target, parts[0].parent) as out:
        if target.suffix == ".csv":
            out.write(_to_csv([COLUMNS]))
            for part in parts:
                with part.open("rb") as rows:
                    shutil.copyfileobj(rows, out)
            return
        import pyarrow.parquet as pq

        with pq.ParquetWriter(out, pq.read_schema(parts[0]), use_dictionary=DICTIONARY_COLUMNS) as writer:
            for part in parts:
                writer.write_table(pq.read_table(part))


@contextmanager
def atomic_write(path: Path, folder: Path | None = None) -> Iterator[IO[bytes]]:
    """Open a file that replaces ``path`` in one step when it is complete and on the disk.

    Args:
        path: the final path.
        folder: folder of the incomplete file, on the same file system; None for the folder of ``path``.
    """
    temporary = (folder or path.parent) / f".{path.name}-{secrets.token_hex(8)}"
    # The system applies the umask, which a process with threads cannot read safely.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as out:
            yield out
            out.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # not supported by this file system
    finally:
        os.close(descriptor)


def _to_csv(rows: Iterable[Iterable[object]]) -> bytes:
    lines = io.StringIO(newline="")
    csv.writer(lines).writerows(rows)
    return lines.getvalue().encode("utf-8")
