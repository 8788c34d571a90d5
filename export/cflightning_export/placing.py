"""Folders that are complete or not there: made in a scratch folder beside their place, then moved into it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cflightning.errors import ExportError

FORMAT = "cflightning-bundle"
LAYOUT_FORMAT = "cflightning-layout"
_MARKS = {"manifest.json": FORMAT, "layout.json": LAYOUT_FORMAT}
"""File at the top of a folder that an export has written -> its `format`."""


def check_target(target: Path, overwrite: bool) -> None:
    """Make sure that an export may take the place; an empty folder there is removed.

    Args:
        target: the folder to make, absolute.
        overwrite: whether what an earlier export wrote is replaced; any other existing folder is never touched.

    Raises:
        ExportError: something is there that has to stay.
    """
    if target.is_symlink():
        raise ExportError(f"{target}: is a link; name the folder itself")
    if not target.exists():
        return
    if target == Path.cwd():
        raise ExportError(f"{target}: is the current folder; name one to be made in it")
    if target.is_dir() and not any(target.iterdir()):
        target.rmdir()
        return
    if not any(_format(target / name) == ours for name, ours in _MARKS.items()):
        raise ExportError(f"{target}: exists and is no bundle; choose another folder")
    if not overwrite:
        raise ExportError(f"{target}: exists; choose another folder, or replace it with --overwrite")


@contextmanager
def placed(target: Path) -> Iterator[Path]:
    """Give a scratch folder that takes its place when the block ends, and goes when it fails.

    Args:
        target: the folder to make, absolute and checked; an old one goes only when the new one is there.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        scratch.chmod(0o755)  # mkdtemp makes it private
        yield scratch
        _move(scratch, target)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _move(scratch: Path, target: Path) -> None:
    old = scratch.with_name(f"{scratch.name}.old")
    if target.exists():
        os.replace(target, old)
    os.replace(scratch, target)
    shutil.rmtree(old, ignore_errors=True)


def _format(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8")).get("format")
    except (OSError, ValueError, AttributeError):
        return None
