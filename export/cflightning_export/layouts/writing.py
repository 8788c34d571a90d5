"""From a bundle, or a checkpoint, to a layout."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from cflightning_export.bundle import export_bundle
from cflightning_export.layouts import mlflow, triton
from cflightning_export.layouts.source import Bundle, read_bundle
from cflightning_export.publish import (
    LAYOUT_FILE,
    LAYOUT_FORMAT,
    atomic_folder,
    check_target,
    export_errors,
    scratch_folder,
)

log = logging.getLogger(__name__)

LayoutName = Literal["triton", "mlflow"]


class Layout(NamedTuple):
    """How one platform wants a bundle.

    Attributes:
        write: (bundle, empty folder) -> None.
        next_steps: (target, manifest, a user id) -> lines that try it out.
    """

    write: Callable[[Bundle, Path], None]
    next_steps: Callable[[Path, dict[str, Any], Any], list[str]]


LAYOUTS: dict[LayoutName, Layout] = {
    "triton": Layout(triton.write, triton.next_steps),
    "mlflow": Layout(mlflow.write, mlflow.next_steps),
}


def lay_out(bundle: Path | str, target: Path | str, layout: LayoutName, *, overwrite: bool = False) -> Path:
    """Make a layout from a finished bundle, which stays as it is.

    Args:
        bundle: folder of the bundle.
        target: the folder to make; its `layout.json` holds the bundle's manifest.
        layout: the platform.
        overwrite: whether what an earlier export wrote is replaced; any other existing folder is never touched.

    Returns:
        The new folder.

    Raises:
        ExportError: the bundle is damaged, the target exists, or the platform cannot take the bundle; then nothing is
            left behind.
    """
    source, target = read_bundle(Path(bundle)), Path(target).absolute()
    check_target(target, overwrite)
    with atomic_folder(target, overwrite=overwrite) as scratch:
        LAYOUTS[layout].write(source, scratch)
        mark = {"format": LAYOUT_FORMAT, "layout": layout, "bundle": source.manifest}
        (scratch / LAYOUT_FILE).write_text(json.dumps(mark, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    return target


def export_layout(
    source: Path | str, target: Path | str, layout: LayoutName, *, overwrite: bool = False, **options: Any
) -> Path:
    """Turn a checkpoint into a layout, through a bundle that is checked against torch and not kept.

    Args:
        source: a run folder or a checkpoint.
        target: the folder to make.
        layout: the platform.
        overwrite: as for `lay_out`.
        options: of `export_bundle`.

    Raises:
        CheckpointError: the source cannot be used.
        ExportError: as `export_bundle` and `lay_out` raise it.
    """
    target = Path(target).absolute()
    check_target(target, overwrite)  # before the work
    with export_errors(target), scratch_folder(target) as scratch:
        bundle = export_bundle(source, scratch / "bundle", **options)
        log.info("writing the %s layout", layout)
        return lay_out(bundle, target, layout, overwrite=overwrite)
