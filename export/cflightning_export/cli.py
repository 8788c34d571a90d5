"""``python -m cflightning export RUN_OR_CHECKPOINT BUNDLE``."""

from __future__ import annotations

import argparse
import json
import logging
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cflightning_export.layouts.registry import BundleOptions
    from cflightning_serve.bundle.strict_json import Json


def main(args: Sequence[str] | None = None) -> int:
    """Run the command, and print what to type next.

    Args:
        args: arguments after `export`.

    Returns:
        0; errors are raised as `CFLightningError`.
    """
    options = _parser().parse_args(args)

    from cflightning.checkpoint.format import locate_checkpoint, read_checkpoint, unpack_metadata
    from cflightning_export.bundle import export_bundle  # imports torch and onnx, for which --help must not wait
    from cflightning_export.layouts.registry import LAYOUTS, export_layout

    logging.basicConfig(format="%(message)s")
    logging.getLogger("cflightning_export").setLevel(logging.INFO)
    source = locate_checkpoint(options.source)
    first_users = unpack_metadata(read_checkpoint(source, mapped=True))[0].users.values[:1].tolist()
    wanted: BundleOptions = {
        "with_history": options.with_history,
        "new_items": options.new_items,
        "refit_users": options.refit_users,
        "precision": options.precision,
        "max_rmse_change": options.max_rmse_change,
        "min_overlap": options.min_overlap,
    }
    if options.layout == "bundle":
        folder = export_bundle(source, options.target, overwrite=options.overwrite, **wanted)
        manifest, [user] = json.loads((folder / "manifest.json").read_text(encoding="utf-8")), first_users
        next_steps = [
            f"python -m cflightning_serve info {options.target}",
            f"python -m cflightning_serve recommend {options.target} --user {shlex.quote(str(user))} --k 10",
        ]
    else:
        folder = export_layout(source, options.target, options.layout, overwrite=options.overwrite, **wanted)
        manifest = json.loads((folder / "layout.json").read_text(encoding="utf-8"))["bundle"]
        next_steps = LAYOUTS[options.layout].next_steps(options.target, manifest, first_users[0])
    for line in _summary(options.target, manifest):
        print(line)
    for number, line in enumerate(next_steps):
        print(f"{'      ' if number else 'next  '}{line}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cflightning export",
        description="Turn a run into a bundle: ONNX graphs that take and return ids, verified against torch.",
    )
    parser.add_argument("source", metavar="RUN_OR_CHECKPOINT", type=Path, help="run folder (its best epoch) or .ckpt")
    parser.add_argument("target", metavar="BUNDLE", type=Path, help="folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing bundle")
    parser.add_argument(
        "--layout",
        choices=("bundle", "triton", "mlflow"),
        default="bundle",
        help="bundle (default), Triton model repository or MLflow model folder",
    )
    history = parser.add_mutually_exclusive_group()
    history.add_argument(
        "--with-history",
        action="store_true",
        default=None,
        help="also put the ratings of the training rows into the bundle, which explain the scores of known users",
    )
    history.add_argument(
        "--without-history",
        dest="with_history",
        action="store_false",
        help="put no row of the table into the bundle. By default it holds the items of every row, so that "
        "recommendations exclude seen items; everyone who has the bundle can read them",
    )
    parser.add_argument(
        "--new-items", action="store_true", help="also fold in new items, from the users who rated them"
    )
    parser.add_argument(
        "--refit-users",
        action="store_true",
        help="refit known users to their training ratings, unless that raises the validation error",
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8"),
        default="fp32",
        help="precision of the tables (default: %(default)s); int8 has a scale for each row of a table",
    )
    parser.add_argument(
        "--max-rmse-change",
        metavar="X",
        type=float,
        help="largest root mean squared change of scores by the precision, on random pairs (.001 of the rating range)",
    )
    parser.add_argument(
        "--min-overlap",
        metavar="SHARE",
        type=float,
        default=0.97,
        help="share of the top-10 recommendations that the precision must keep (default: %(default)s)",
    )
    return parser


def _summary(target: Path, manifest: dict[str, Json]) -> Iterator[str]:
    """Yield lines that describe a bundle."""
    size = sum(file["bytes"] for file in manifest["files"].values())
    yield (
        f"{target}: {manifest['model']}, "
        f"{manifest['num_users'] - 1:,} users x {manifest['num_items'] - 1:,} items, "
        f"dim {manifest['dim']}, {size / 1e6:.1f} MB, agrees with torch"
    )
    ratings = " and ratings" if "history" in manifest["graphs"] else ""
    if "seen" in manifest["graphs"]:
        yield f"rows  every user's items{ratings}: recommendations exclude them; everyone with the bundle can read them"
    else:
        yield "rows  none: recommendations include seen items, unless each request excludes them (--exclude)"
    if (units := manifest.get("units")) is not None:
        yield f"units  score: {units['score']}, recommend: {units['recommend']}"
    if (precision := manifest.get("precision")) is not None:
        yield (
            f"{precision['tables']} tables: scores change by {precision['rmse_change']:.2g}, "
            f"recommendations keep {precision['overlap@10']:.1%}"
        )
