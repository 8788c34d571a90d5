"""``python -m cflightning export RUN_OR_CHECKPOINT BUNDLE``."""

from __future__ import annotations

import argparse
import json
import logging
import shlex
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
    parser.add_argument(
        "--new-items", action="store_true", help="also take items that were not there in training, by who rated them"
    )
    options = parser.parse_args(args)

    from cflightning.checkpoint import find, read, unpack
    from cflightning_export.bundle import export_bundle  # torch and onnx only now: --help is quick

    logging.basicConfig(format="%(message)s")
    logging.getLogger("cflightning_export").setLevel(logging.INFO)
    source = find(options.source)
    folder = export_bundle(source, options.target, overwrite=options.overwrite, new_items=options.new_items)
    user = unpack(read(source))[0].users.values[0]
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    size = sum(file["bytes"] for file in manifest["files"].values())
    print(
        f"{options.target}: {manifest['model']}, "
        f"{manifest['num_users'] - 1:,} users x {manifest['num_items'] - 1:,} items, "
        f"dim {manifest['dim']}, {size / 1e6:.1f} MB, agrees with torch"
    )
    if (units := manifest.get("units")) is not None:
        print(f"answers  score: {units['score']}, recommend: {units['recommend']}")
    print(f"next  python -m cflightning_serve info {options.target}")
    print(f"      python -m cflightning_serve recommend {options.target} --user {shlex.quote(str(user))} --k 10")
    return 0
