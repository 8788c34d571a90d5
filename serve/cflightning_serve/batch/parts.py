"""The folder of finished parts beside an output file, locked by one process and bound to the settings of its run."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cflightning_serve.batch.files import TEMPORARY_NAME, atomic_write
from cflightning_serve.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

SETTINGS_FILE = "settings.json"


@contextmanager
def parts_folder(folder: Path, settings: Mapping[str, object]) -> Iterator[None]:
    """Create the folder or open an existing one, and lock it against other processes during the block.

    Args:
        folder: the folder.
        settings: JSON values that determine the contents of the parts; parts with other settings are refused.

    Raises:
        InputError: another process uses the folder, or its contents belong to something else.
    """
    try:
        folder.mkdir(exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"{folder}: cannot be created: {error.strerror}") from error
    try:
        _lock(descriptor, folder)
        for path in folder.iterdir():
            if re.fullmatch(TEMPORARY_NAME, path.name):  # left by a process that was killed while writing
                path.unlink()
        _check_settings(folder, settings)
        yield
    finally:
        os.close(descriptor)  # releases the lock


def remove_parts(folder: Path) -> None:
    """Remove the folder, its settings last, so that an interrupted removal can be continued like any other run."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name == SETTINGS_FILE):
        path.unlink()
    folder.rmdir()


def _check_settings(folder: Path, settings: Mapping[str, object]) -> None:
    try:
        existing = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        if any(folder.iterdir()):
            raise InputError(
                f"{folder}: must be empty or contain parts of this output, contains something else; remove it"
            ) from None
        with atomic_write(folder / SETTINGS_FILE) as out:
            out.write(json.dumps(settings, indent=1).encode())
        return
    except ValueError:
        existing = None
    if not isinstance(existing, dict):
        existing = {}
    different = [name for name, value in settings.items() if existing.get(name) != value]
    if different:
        raise InputError(
            f"{folder}: contains parts of another run: {', '.join(different)} differ; remove the folder, or choose "
            "another --out"
        )


def _lock(descriptor: int, folder: Path) -> None:
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InputError(
            f"{folder}: another process is writing this output; wait for it, or give each its own --out or --shard"
        ) from error
    except OSError:
        pass  # a file system without locks
