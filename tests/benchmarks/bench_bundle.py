"""Size and load time of bundles by the precision of their tables.

    python tests/benchmarks/bench_bundle.py RUN [RUN ...] [--write]

Every run folder is exported in each precision. A new process loads a bundle with all graphs
(`Scorer.load(folder, eager=True)`) after the imports; results are medians of several alternating processes. The RMSE
is that of the bundle's scores on the run's test rows.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml
from results import write_section

from cflightning.checkpoint import format as checkpoints
from cflightning_export import export_bundle
from cflightning_export.contents.training_data import training_data
from cflightning_serve import Manifest, Scorer

PRECISIONS = ("fp32", "fp16", "int8")
LOADER = """
import sys, time
import numpy, onnxruntime
from cflightning_serve import Scorer
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
before, began = peak(), time.perf_counter()
scorer = Scorer.load(sys.argv[1], eager=True)
print(time.perf_counter() - began, peak() - before)
"""


def source(run: Path) -> str:
    """Return the name of a run's data set."""
    return yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["data"]["init_args"]["source"]


def test_error(run: Path, folder: Path) -> float:
    """Return the RMSE of a bundle on the test rows of its run, rating units."""
    path = checkpoints.locate_checkpoint(run)
    vocabulary, metadata = checkpoints.unpack_metadata(checkpoints.read_checkpoint(path))
    data = training_data(path, vocabulary, metadata.train_rows)
    tested = data.table.frame.iloc[data.split.test]
    scores = Scorer.load(folder).score(tested["user"].to_numpy(), tested["item"].to_numpy())
    return float(np.sqrt(((scores - tested["rating"].to_numpy()) ** 2).mean()))


def kept(folder: Path) -> float:
    """Return the share of top-10 items that rounding preserves, from the manifest."""
    return json.loads((folder / "manifest.json").read_text()).get("precision", {"overlap@10": 1.0})["overlap@10"]


def weights(folder: Path) -> dict[str, int]:
    """Return the bytes of the parts of a bundle and of all files."""
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    parts = {"weights.bin": sizes["weights.bin"], "graphs": sum(sizes[n] for n in sizes if n.endswith(".onnx"))}
    return {**parts, "rest": sum(sizes.values()) - sum(parts.values()), "all": sum(sizes.values())}


def loaded(folder: Path) -> tuple[float, float]:
    """Return the load time in milliseconds and the peak growth of the process in MB."""
    done = subprocess.run([sys.executable, "-c", LOADER, folder], capture_output=True, text=True, check=True)
    seconds, grown = map(float, done.stdout.split())
    return seconds * 1e3, grown * 1024 / 1e6


def section(runs: list[Path], processes: int, scratch: Path) -> str:
    """Return the section of RESULTS.md."""
    bundles = {
        (run, precision): export_bundle(run, scratch / f"{number}-{precision}", precision=precision)
        for number, run in enumerate(runs)
        for precision in PRECISIONS
    }
    costs = {key: [] for key in bundles}
    for _ in range(processes):
        for key, folder in bundles.items():
            costs[key].append(loaded(folder))
    lines = [
        "## Bundles",
        "",
        f"`make bench-bundle ARGS=...`, {time.strftime('%Y-%m-%d')}; {platform.machine()}, {os.cpu_count()} cores. "
        "KB are 1,000 bytes of the folder. Loading opens every graph in a new process; load MB is the peak growth "
        "of its memory. Same top 10: the share of 1,000 users' top-10 items that rounding preserves.",
        "",
        "| data | units of score and recommend | tables | weights KB | graphs KB | rest KB | all KB | of fp32 "
        "| load ms | load MB | test RMSE | same top 10 |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for (run, precision), folder in bundles.items():
        manifest, size = Manifest.read(folder), weights(folder)
        share = size["all"] / weights(bundles[run, "fp32"])["all"]
        milliseconds, grown = (statistics.median(column) for column in zip(*costs[run, precision], strict=True))
        lines.append(
            f"| {source(run)} | {manifest.units['score']}, {manifest.units['recommend']} | {precision} | "
            + " | ".join(f"{size[part] / 1e3:,.0f}" for part in ("weights.bin", "graphs", "rest", "all"))
            + f" | {share:.3f} | {milliseconds:.0f} | {grown:.0f} | {test_error(run, folder):.6f} "
            f"| {kept(folder):.3f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write the section with `--write`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders")
    parser.add_argument("--processes", type=int, default=7, help="that load each bundle (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help="write the section of RESULTS.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        text = section(options.runs, options.processes, Path(scratch))
    print(text)
    if options.write:
        write_section("bundles", text)


if __name__ == "__main__":
    main()
