"""Files of lists, a row for each user and place: CSV, or Parquet with pyarrow; written in parts that are joined."""

import csv
import io
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from cflightning_serve.bundle.ids import IdArray
from cflightning_serve.bundle.manifest import IdType
from cflightning_serve.errors import InputError
from cflightning_serve.inference.bulk import Lists

COLUMNS = ("user", "rank", "item", "score")
REPEATED = ["user", "rank", "item"]
"""Columns that Parquet keeps as places in a dictionary; scores hardly repeat, and take longer so than as they are."""
FORMATS = (".csv", ".parquet")
SCRATCH = r"\..+-[0-9a-f]{16}"
"""Names of files that are being written."""


def check_format(path: Path) -> None:
    """Refuse a file that could not be written at the end.

    Raises:
        InputError: another ending, or Parquet without pyarrow.
    """
    if path.suffix not in FORMATS:
        raise InputError(f"--out: must end in {' or '.join(FORMATS)}, got {path.name!r}")
    if path.suffix == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise InputError(
                "--out: a Parquet file needs pyarrow: pip install 'cflightning-serve[parquet]', or write .csv"
            ) from error


def write_part(path: Path, users: IdArray, lists: Lists, kinds: tuple[IdType, IdType]) -> None:
    """Write the lists of some users: whole, or not at all.

    Args:
        path: of the part; its ending says the format. A part in CSV has no header.
        users: ids [n].
        lists: of the same users.
        kinds: types of user and item ids.
    """
    user = np.repeat(users, lists.counts)
    rank = np.arange(1, len(user) + 1) - np.repeat(np.cumsum(lists.counts) - lists.counts, lists.counts)
    with replacing(path) as out:
        if path.suffix == ".parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            types = [pa.int64() if kind == "int64" else pa.string() for kind in kinds]
            columns = [pa.array(user, types[0]), pa.array(rank, pa.int32()), pa.array(lists.items, types[1])]
            pq.write_table(pa.table([*columns, pa.array(lists.scores)], names=COLUMNS), out, use_dictionary=REPEATED)
            return
        # The fewest digits that still name each float32.
        scores = lists.scores.astype(str)
        rows = zip(user.tolist(), rank.tolist(), lists.items.tolist(), scores.tolist(), strict=True)
        out.write(_as_csv(rows))


def join_parts(parts: Sequence[Path], target: Path) -> None:
    """Write one file of all parts, in order: whole, or not at all; half of it would lie in the folder of the parts."""
    with replacing(target, parts[0].parent) as out:
        if target.suffix == ".csv":
            out.write(_as_csv([COLUMNS]))
            for part in parts:
                with part.open("rb") as rows:
                    shutil.copyfileobj(rows, out)
            return
        import pyarrow.parquet as pq

        with pq.ParquetWriter(out, pq.read_schema(parts[0]), use_dictionary=REPEATED) as writer:
            for part in parts:
                writer.write_table(pq.read_table(part))


@contextmanager
def replacing(path: Path, folder: Path | None = None) -> Iterator[IO[bytes]]:
    """Open a file that takes its place in one step, at the end, when it is on the disk.

    Args:
        path: its place.
        folder: where it lies until then; on the same file system. None for the folder of its place.
    """
    scratch = (folder or path.parent) / f".{path.name}-{secrets.token_hex(8)}"
    # The system applies the umask, which a process with threads cannot ask for safely.
    handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(handle, "wb") as out:
            yield out
            out.flush()
            os.fsync(handle)
        os.replace(scratch, path)
        _sync(path.parent)
    finally:
        scratch.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        pass  # file systems that do not sync folders
    finally:
        os.close(handle)


def _as_csv(rows: Any) -> bytes:
    lines = io.StringIO(newline="")
    csv.writer(lines).writerows(rows)
    return lines.getvalue().encode("utf-8")
