"""Layouts of a bundle for other platforms, made from a finished bundle or from a checkpoint."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple, TypedDict, Unpack

from cflightning_export.bundle import export_bundle
from cflightning_export.layouts import mlflow, triton
from cflightning_export.layouts.source import Bundle, read_bundle
from cflightning_export.onnx_tools.quantization import Precision
from cflightning_export.publish import (
    LAYOUT_FILE,
    LAYOUT_FORMAT,
    atomic_folder,
    check_target,
    export_errors,
    scratch_folder,
)
from cflightning_serve.bundle.strict_json import Json

log = logging.getLogger(__name__)

LayoutName = Literal["triton", "mlflow"]


class BundleOptions(TypedDict, total=False):
    """Options of `export_bundle`."""

    with_history: bool | None
    new_items: bool
    refit_users: bool
    precision: Precision
    max_rmse_change: float | None
    min_overlap: float


class Layout(NamedTuple):
    """The layout of a bundle for one platform.

    Attributes:
        write: (bundle, empty folder) -> None.
        next_steps: (target, manifest, a user id) -> commands that try it out.
    """

    write: Callable[[Bundle, Path], None]
    next_steps: Callable[[Path, dict[str, Json], int | str], list[str]]


LAYOUTS: dict[LayoutName, Layout] = {
    "triton": Layout(triton.write, triton.next_steps),
    "mlflow": Layout(mlflow.write, mlflow.next_steps),
}


def write_layout(bundle: Path | str, target: Path | str, layout: LayoutName, *, overwrite: bool = False) -> Path:
    """Make a layout from a finished bundle, which stays as it is.

    Args:
        bundle: folder of the bundle.
        target: the folder to make; its `layout.json` holds the manifest of the bundle.
        layout: name of the platform.
        overwrite: whether the output of an earlier export is replaced; any other existing folder is never touched.

    Returns:
        The new folder.

    Raises:
        ExportError: the bundle is damaged, the target exists, or the platform cannot run the bundle; then nothing is
            left behind.
    """
    source, target = read_bundle(Path(bundle)), Path(target).absolute()
    check_target(target, overwrite)
    with atomic_folder(target, overwrite=overwrite) as scratch:
        LAYOUTS[layout].write(source, scratch)
        marker = {"format": LAYOUT_FORMAT, "layout": layout, "bundle": source.manifest}
        text = json.dumps(marker, ensure_ascii=False, indent=2)
        (scratch / LAYOUT_FILE).write_text(text + "\n", encoding="utf-8")
    return target


def export_layout(
    source: Path | str,
    target: Path | str,
    layout: LayoutName,
    *,
    overwrite: bool = False,
    **options: Unpack[BundleOptions],
) -> Path:
    """Turn a checkpoint into a layout, by way of a bundle that is verified against torch and not kept.

    Args:
        source: a run folder or a checkpoint.
        target: the folder to make.
        layout: name of the platform.
        overwrite: as for `write_layout`.
        options: options of `export_bundle`.

    Raises:
        CheckpointError: the source cannot be used.
        ExportError: see `export_bundle` and `write_layout`.
    """
    target = Path(target).absolute()
    check_target(target, overwrite)  # before the work
    with export_errors(target), scratch_folder(target) as scratch:
        bundle = export_bundle(source, scratch / "bundle", **options)
        log.info("writing the %s layout", layout)
        return write_layout(bundle, target, layout, overwrite=overwrite)
