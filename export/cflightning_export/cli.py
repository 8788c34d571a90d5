"""``python -m cflightning export RUN_OR_CHECKPOINT BUNDLE``."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path


def main(args: Sequence[str] | None = None) -> int:
    """Write a bundle and say what to type next.

    Args:
        args: Arguments after `export`.

    Returns:
        0. Mistakes are raised as `CFLightningError`.
    """
    parser = argparse.ArgumentParser(
        prog="python -m cflightning export",
        description="Turn a run into a bundle: ONNX graphs that take and return raw ids, checked against torch.",
    )
    parser.add_argument("source", metavar="RUN_OR_CHECKPOINT", type=Path, help="run folder (its best epoch) or .ckpt")
    parser.add_argument("target", metavar="BUNDLE", type=Path, help="folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing bundle")
    options = parser.parse_args(args)

    from cflightning_export.bundle import export_bundle  # torch and onnx only now: --help is quick

    logging.basicConfig(format="%(message)s")
    logging.getLogger("cflightning_export").setLevel(logging.INFO)
    folder = export_bundle(options.source, options.target, overwrite=options.overwrite)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    size = sum(file["bytes"] for file in manifest["files"].values())
    print(
        f"{folder}: {manifest['model']}, {manifest['num_users'] - 1:,} users x {manifest['num_items'] - 1:,} items, "
        f"dim {manifest['dim']}, {size / 1e6:.1f} MB, agrees with torch"
    )
    print(f"next  python -m cflightning_serve info {folder}")
    print(f"      python -m cflightning_serve recommend {folder} --user ID --k 10")
    return 0
