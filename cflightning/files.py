"""Files that are there whole or not at all."""

from __future__ import annotations

import csv
import itertools
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path, mode: str = "w", newline: str | None = None, *, private: bool = False) -> Iterator[Any]:
    """Open a file that takes its place in one step, at the end: readers see the old one or the new one, never half.

    What is raised inside leaves the old file as it was, and nothing of the new one behind.

    Args:
        path: the place; its folder must exist.
        mode: `w` for text in UTF-8, `wb`, or `w+b` to read back what was written.
        newline: as `open` takes it.
        private: whether other users may never read it; otherwise the umask says who may.

    Yields:
        The open file, which lies beside the place until then.
    """
    scratch = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    # The system applies the umask, which a process with threads cannot ask for safely.
    handle = os.open(scratch, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666)
    try:
        with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8", newline=newline) as out:
            yield out
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def write_csv(path: Path, columns: Mapping[str, Iterable[Any]]) -> None:
    """Write columns of equal length under their names, as `replacing` does."""
    with replacing(path, newline="") as out:
        writer = csv.writer(out)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def claim(root: Path, name: str) -> Path:
    """Make the first free folder `root/name_N`; runs that start at once get different ones."""
    for number in itertools.count():
        try:
            (root / f"{name}_{number}").mkdir(parents=True)
        except FileExistsError:
            continue
        return root / f"{name}_{number}"
    raise AssertionError
