"""Files that are there whole or not at all."""

from __future__ import annotations

import csv
import itertools
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path, mode: str = "w", newline: str | None = None) -> Iterator[Any]:
    """Open a file that takes its place in one step, at the end: readers see the old one or the new one, never half.

    What is raised inside leaves the old file as it was, and nothing of the new one behind.

    Args:
        path: the place; its folder must exist.
        mode: `w` for text in UTF-8, or `wb`.
        newline: as `open` takes it.

    Yields:
        The open file, which lies beside the place until then.
    """
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8", newline=newline) as out:
            yield out
        os.chmod(scratch, 0o644)  # mkstemp makes it private
        os.replace(scratch, path)
    finally:
        Path(scratch).unlink(missing_ok=True)


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
