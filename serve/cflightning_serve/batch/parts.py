"""The folder of finished parts beside a file that is being written: of one process, and of one kind of lists."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cflightning_serve.batch.files import SCRATCH, replacing
from cflightning_serve.errors import InputError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

RECORD = "record.json"


@contextmanager
def parts_folder(folder: Path, about: Mapping[str, Any]) -> Iterator[None]:
    """Make the folder, or take up the parts that are there, and keep other processes out while the block runs.

    Args:
        folder: beside the file.
        about: what parts are of; those of anything else are never joined with them.

    Raises:
        InputError: another process uses the folder, or it holds something else.
    """
    try:
        folder.mkdir(exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made: {error.strerror}") from error
    try:
        _lock(handle, folder)
        for path in folder.iterdir():
            if re.fullmatch(SCRATCH, path.name):  # of a process that was killed while it wrote
                path.unlink()
        _check(folder, about)
        yield
    finally:
        os.close(handle)  # and so the lock


def remove(folder: Path) -> None:
    """Remove the folder, its record last: until then whoever is stopped here goes on as with any other parts."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name == RECORD):
        path.unlink()
    folder.rmdir()


def _check(folder: Path, about: Mapping[str, Any]) -> None:
    try:
        before = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        if any(folder.iterdir()):
            raise InputError(
                f"{folder}: must be empty or hold parts of these lists, holds something else; remove it"
            ) from None
        with replacing(folder / RECORD) as out:
            out.write(json.dumps(about, indent=1).encode())
        return
    except ValueError:
        before = {}
    different = [name for name, value in about.items() if not isinstance(before, dict) or before.get(name) != value]
    if different:
        raise InputError(
            f"{folder}: holds parts of other lists: {', '.join(different)} differ; remove the folder, or choose "
            "another --out"
        )


def _lock(handle: int, folder: Path) -> None:
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InputError(
            f"{folder}: another process is writing these lists; wait for it, or give each its own --out or --shard"
        ) from error
    except OSError:
        pass  # a file system without locks, where nothing keeps two apart
