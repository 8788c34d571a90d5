"""cflightning and other matrix-factorisation libraries: same split, same threads, one new process each.

    python tests/benchmarks/bench_peers.py [--only PEER ...] [--data u1 small ...] [--threads 2]      (or: make bench)

Needs the real data sets (CFLIGHTNING_DATA, default ../shared/data) and the package index: every library has its own
environment, .venv-peers/PEER, with the versions below. A failed installation or run is reported in its row. The tables
are written to RESULTS.md, or, with --only, only printed.
"""

import argparse
import json
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from peers.common import SHORT, Recipe, growing
from peers.protocols import PROTOCOLS, Protocol
from results import write_section

from cflightning.evaluation.run_metrics import read_metrics

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
DATA = Path(os.environ.get("CFLIGHTNING_DATA", REPOSITORY.parent / "shared" / "data"))
ENVIRONMENTS = REPOSITORY / ".venv-peers"
BAR, STRETCH = 0.4, 0.2
"""Training seconds to the target on ml-1m relative to LIBMF's fit: requirement and goal."""


@dataclass(frozen=True)
class Peer:
    """Installation and runner of a library.

    Attributes:
        title: name in the table.
        runner: a module in peers/.
        install: arguments of pip, one text per call.
        build: environment variables of the installation.
        patience: timeout in seconds after which a recipe is restarted, up to three times; for libraries that hang.
    """

    title: str
    runner: str
    install: tuple[str, ...]
    build: dict[str, str] = field(default_factory=dict)
    patience: float | None = None


# Versions that install and run on Python 3.11. torch is pinned and installed first, so that no other is installed.
NUMPY = "numpy==2.4.6 scipy==1.17.1"
FRAMES = "pandas==2.3.3"
PEERS = {
    "surprise": Peer("Surprise", "surprise", (f"scikit-surprise==1.1.5 {NUMPY}",)),
    # On small data, its threads occasionally deadlock.
    "libmf": Peer("LIBMF as pip builds it", "libmf", ("libmf==0.9.2 numpy==2.4.6",), patience=300),
    "libmf-avx": Peer(
        "LIBMF built with its AVX and OpenMP switches",
        "libmf",
        ("--no-cache-dir --no-binary libmf libmf==0.9.2 numpy==2.4.6",),
        {"CFLAGS": "-O3 -march=native -fopenmp -DUSEOMP -DUSEAVX"},
        patience=300,
    ),
    # threadpoolctl: cmfrec imports it without declaring it.
    "cmfrec": Peer("cmfrec", "cmfrec", (f"cmfrec==3.5.1.post14 {FRAMES} {NUMPY} threadpoolctl==3.8.0",)),
    "lenskit": Peer("LensKit", "lenskit", ("torch==2.13.0", f"torch==2.13.0 lenskit==2025.8.1 {FRAMES} {NUMPY}")),
    "implicit": Peer("implicit", "implicit", (f"implicit==0.7.3 {NUMPY}",)),
    "myfm": Peer("myFM", "myfm", (f"myfm==0.4.0 {FRAMES} {NUMPY}",)),
    # Without dependencies: torchvision, which is not needed, requires another torch, and fastprogress 1.1 a web
    # framework.
    "fastai": Peer(
        "fastai",
        "fastai",
        (
            f"torch==2.13.0 {FRAMES} {NUMPY} scikit-learn==1.9.1 fastcore==2.2.39 beartype==0.23.1 rich==15.0.0 "
            "requests==2.34.2 pyyaml==6.0.3 pillow==13.0.0 matplotlib==3.11.2 cloudpickle==3.1.2 packaging==26.3",
            "--no-deps fastai==2.8.12 fastprogress==1.0.3 fastdownload==0.0.8 fasttransform==0.0.5 "
            "plum-dispatch==2.9.0",
        ),
    ),
}
OURS = "cflightning"
DEFAULTS = "all defaults"
VALIDATED = 0.05
"""Default fraction of the training rows in the validation part."""
COMMAND_LINE = [
    Recipe("fused, defaults", {"model.engine": "fused", "data.split.val_fraction": 0}, 10),
    Recipe("autograd, defaults", {"model.engine": "autograd", "data.split.val_fraction": 0}, 10),
    Recipe(DEFAULTS, epochs=10, warning="validation part of 5 %"),
]


def text_of(error: str) -> str:
    """Return the last line of an error without paths."""
    lines = [line for line in error.strip().splitlines() if line.strip()] or ["no message"]
    lines = [line for line in lines if line.startswith("ERROR")] or lines  # pip prints warnings after its error
    return re.sub(r"(?:\w+://|(?<![\w.])/)\S*?([^/\s]*)(?=\s|$)", r"\1", lines[-1].strip())[:200].replace("|", "/")


def environment(threads: int) -> dict[str, str]:
    """Return the environment variables of the measured processes."""
    names = ("OMP", "OPENBLAS", "MKL", "NUMBA", "LK", "RAYON")
    return {**os.environ, **{f"{name}_NUM_THREADS": str(threads) for name in names}, "PYTHONWARNINGS": "ignore"}


def install(name: str, peer: Peer, timeout: float) -> None:
    """Create the environment of a library unless it exists with the required versions.

    Raises:
        RuntimeError: pip failed; the message is its last line.
    """
    folder = ENVIRONMENTS / name
    stamp, asked = folder / "installed", json.dumps([sys.version, peer.install, peer.build])
    if stamp.is_file() and stamp.read_text() == asked:
        return
    print(f"{name}: installing", flush=True)
    commands = [[sys.executable, "-m", "venv", "--clear", folder]]
    commands += [[folder / "bin" / "python", "-m", "pip", "install", "-q", *shlex.split(line)] for line in peer.install]
    for command in commands:
        done = subprocess.run(command, env=os.environ | peer.build, capture_output=True, text=True, timeout=timeout)
        if done.returncode:
            raise RuntimeError(f"could not be installed: {text_of(done.stderr)}")
    stamp.write_text(asked)


def measure(name: str, number: int, split: Path, target: float | None, options: argparse.Namespace) -> dict[str, Any]:
    """Run a recipe of a library, or of cflightning from Python, in a new process.

    Raises:
        RuntimeError: the process failed; the message is its last line.
        subprocess.TimeoutExpired: the process was too slow or hung every time.
    """
    python, runner, patience = Path(sys.executable), "ours", None
    if name != OURS:
        python, runner, patience = ENVIRONMENTS / name / "bin" / "python", PEERS[name].runner, PEERS[name].patience
    command = [python, "-m", "peers.run", runner, split, "--recipe", number]
    command += [] if target is None else ["--target", target]
    command += ["--threads", options.threads, "--repeats", options.repeats]
    for hung in range(3):
        try:
            done = subprocess.run(
                list(map(str, command)),
                cwd=HERE,
                env=environment(options.threads),
                capture_output=True,
                text=True,
                timeout=patience or options.timeout,
            )
        except subprocess.TimeoutExpired:
            if patience is None or hung == 2:
                raise
            continue
        if done.returncode:
            raise RuntimeError(f"did not run: {text_of(done.stderr)}")
        return json.loads(done.stdout.strip().splitlines()[-1]) | {"hung": hung}
    raise AssertionError


def fit(protocol: Protocol, epochs: int, threads: int, **options: object) -> dict[str, float]:
    """Run the command line in a new process; return its metrics.json, with its peak memory in MiB as "memory_peak".

    Raises:
        RuntimeError: the command failed; the message is its last line.
    """
    with tempfile.TemporaryDirectory() as root:
        if protocol.config is not None:
            options = {"config": REPOSITORY / "configs" / protocol.config, **options}
        options |= {"data.path": DATA / protocol.folder, "trainer.max_epochs": epochs, "trainer.default_root_dir": root}
        options["model.objective"] = "mse"
        command = [sys.executable, "-m", "cflightning", "fit"]
        command += [str(word) for key, value in options.items() for word in (f"--{key}", value)]
        with open(Path(root) / "errors", "w+") as errors:
            process = subprocess.Popen(
                command, cwd=root, env=environment(threads), stdout=subprocess.DEVNULL, stderr=errors
            )
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                errors.seek(0)
                raise RuntimeError(f"did not run: {text_of(errors.read())}")
        found: dict[str, float] = read_metrics(Path(root) / "version_0" / "metrics.json")
    return found | {"memory_peak": usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)}


def measure_command_line(
    protocol: Protocol, recipe: Recipe, target: float | None, options: argparse.Namespace
) -> dict[str, Any]:
    """Measure the command line as `measure` does other libraries, from metrics.json."""

    def run(epochs: int, again: bool = True) -> tuple[dict[str, float], float]:
        runs = [fit(protocol, epochs, options.threads, **recipe.options)]
        if again and runs[0]["seconds/train"] < SHORT:
            more = range(options.repeats - 1)
            runs += [fit(protocol, epochs, options.threads, **recipe.options) for _ in more]
        return runs[0], statistics.median(run["seconds/train"] for run in runs)

    fit(protocol, 1, options.threads, **recipe.options)  # compiles the kernels and fills their cache
    metrics, seconds = run(recipe.epochs)
    found: dict[str, Any] = {"seconds": seconds, "rmse": metrics["test/rmse"], "memory_peak": metrics["memory_peak"]}
    found["versions"] = {OURS: version(OURS)}
    found["share"] = (
        1 if recipe.options.get("data.split.val_fraction") == 0 else 1 - VALIDATED
    )  # fraction of rows that train
    if target is None:
        return found
    found["reached"] = None
    for epochs in growing(recipe.epochs):
        if run(epochs, again=False)[0]["test/rmse"] <= target:
            found["reached"] = {"epochs": epochs, "seconds": run(epochs)[1]}
            break
    return found


@dataclass
class Row:
    """A row of the table."""

    title: str
    recipe: Recipe
    found: dict[str, Any] = field(default_factory=dict)
    problem: str = ""

    def cells(self, ratings: int) -> list[str]:
        """Return the columns for a number of training ratings."""
        name, found = f"{self.title}: {self.recipe.name}", self.found
        if self.problem:
            return [name, self.problem, *[""] * 5]
        error = "–" if found["rmse"] is None else error_text(found["rmse"])
        if found["rmse"] is None or "reached" not in found:
            reached = "–"
        elif found["reached"]:
            reached = f"{seconds_text(found['reached']['seconds'])} ({found['reached']['epochs']})"
        else:
            reached = "not reached"
        before = f"{found['memory_before']:,.0f} → " if "memory_before" in found else ""
        rate = f"{found.get('share', 1) * ratings * self.recipe.epochs / found['seconds']:,.0f}"
        if self.recipe.warning:
            name += f" ({self.recipe.warning})"
        if found.get("hung"):
            name += f" (hung {found['hung']} ×, started again)"
        seconds = seconds_text(found["seconds"])
        return [name, seconds, error, str(self.recipe.epochs), rate, reached, before + f"{found['memory_peak']:,.0f}"]


def error_text(error: float) -> str:
    return f"{error:.4f}".removeprefix("0")


def seconds_text(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds < 10 else f"{seconds:.0f}"


def ratios(rows: list[Row]) -> list[str]:
    """Return the training seconds of cflightning to the target relative to LIBMF's fit with the recipe of the bar."""
    from peers.libmf import BAR as recipe

    ours = [row for row in rows if row.title.startswith(OURS) and "autograd" not in row.recipe.name]
    ours = [row for row in ours if row.found.get("reached")]
    lines = []
    for other in rows:
        if other.title.startswith("LIBMF") and other.recipe.name == recipe and other.found:
            for row in ours:
                share = row.found["reached"]["seconds"] / other.found["seconds"]
                lines.append(
                    f"{row.title}, {row.recipe.name}: {row.found['reached']['seconds']:.2f} s to the target RMSE / "
                    f"{other.found['seconds']:.2f} s of {other.title}, {recipe}: **{share:.2f}** "
                    f"(bar ≤ {BAR}, stretch ≤ {STRETCH})"
                )
    return lines


def lowest(rows: list[Row]) -> str:
    """List the error of cflightning with its defaults and the lowest of each library, best first."""
    errors: dict[str, float] = {}
    for row in rows:
        name = row.title if not row.title.startswith(OURS) else f"{OURS}, {DEFAULTS}"
        if row.found.get("rmse") is not None and (name == row.title or row.recipe.name == DEFAULTS):
            errors[name] = min(row.found["rmse"], errors.get(name, row.found["rmse"]))
    return ", ".join(f"{name} {error_text(errors[name])}" for name in sorted(errors, key=errors.__getitem__))


def machine() -> str:
    """Describe the hardware and software of the machine."""
    try:
        [model, *_] = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except (OSError, ValueError):
        model = platform.machine()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}, Python {platform.python_version()}"


def commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True)
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=no", "--", ".", ":!*.md"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    return (done.stdout.strip() or "unknown") + (" with changes" if changed.stdout.strip() else "")


NOTES = """\
Seconds are those of the fit call, without imports, reading and compilation; those of the command line are its training
epochs, from metrics.json. Fits below {short:g} s: median of {repeats}. Ratings/s: training ratings × epochs / seconds.
"s to RMSE": the shortest fit that reaches it, trained with that number of epochs (in brackets). Memory in MiB: resident
before the fit → peak of the process; for the command line, the peak of the whole command. Predictions are clipped to
{low:g}…{high:g}. One seed. Settings of other libraries that are not defaults were chosen from a small grid by this very
test part, which favours them; the defaults of cflightning were chosen on training parts. All libraries train on every
training row, except where a validation part is noted."""


def render(protocol: Protocol, rows: list[Row], options: argparse.Namespace, command: str) -> str:
    """Return the section of a protocol."""
    target, (low, high) = f"{protocol.target:g}".removeprefix("0"), protocol.scale
    lines = [
        f"## Other libraries: {protocol.text}",
        "",
        f"{time.strftime('%Y-%m-%d', time.gmtime())}, commit {commit()}, `{command}`. {machine()};",
        f"{options.threads} threads.",
        "",
        NOTES.format(short=SHORT, repeats=options.repeats, target=target, low=low, high=high),
        "",
        f"| recipe | fit, s | test RMSE | epochs | ratings/s | s to RMSE {target} | memory, MiB |",
        "| --- | --: | --: | --: | --: | --: | --: |",
        *("| " + " | ".join(row.cells(protocol.ratings)) + " |" for row in rows),
    ]
    if errors := lowest(rows):
        lines += ["", f"Lowest RMSE: {errors}."]
    if protocol.name == "ml-1m" and (shares := ratios(rows)):
        lines += ["", *(f"- {share}" for share in shares)]
    versions = {name: number for row in rows for name, number in row.found.get("versions", {}).items()}
    if versions:
        lines += ["", "Versions: " + ", ".join(f"{name} {versions[name]}" for name in sorted(versions)) + "."]
    return "\n".join(lines)


def wanted(recipe: Recipe, protocol: Protocol) -> bool:
    return recipe.data is None or protocol.name in recipe.data


def measured(title: str, recipe: Recipe, work: Any) -> Row:
    """Run a measurement; return its row with the results or the error."""
    row = Row(title, recipe)
    try:
        row.found = work()
    except subprocess.TimeoutExpired as late:
        row.problem = f"took longer than {late.timeout:.0f} s"
    except (RuntimeError, OSError, ValueError, KeyError, IndexError) as error:
        row.problem = text_of(str(error))
    return row


def run(protocol: Protocol, chosen: list[str], broken: dict[str, str], options: argparse.Namespace) -> list[Row]:
    """Measure all rows of a protocol."""
    rows: list[Row] = []

    def add(row: Row) -> None:
        rows.append(row)
        print(f"{protocol.name}: " + "  ".join(filter(None, row.cells(protocol.ratings))), flush=True)

    with tempfile.TemporaryDirectory() as scratch:
        split = Path(scratch) / "split.npz"
        # In a separate process: its memory would count for the next measurements.
        subprocess.run([sys.executable, "-m", "peers.split", DATA, protocol.name, split], cwd=HERE, check=True)
        target = protocol.target if options.search else None
        if OURS in chosen:
            for recipe in COMMAND_LINE:
                arguments = protocol, recipe, target, options
                add(measured(f"{OURS}, command line", recipe, lambda a=arguments: measure_command_line(*a)))
        for name in chosen:
            title, runner = (OURS, "ours") if name == OURS else (PEERS[name].title, PEERS[name].runner)
            for number, recipe in enumerate(import_module(f"peers.{runner}").RECIPES):
                if not wanted(recipe, protocol):
                    continue
                if name in broken:
                    add(Row(title, recipe, problem=broken[name]))
                elif protocol.name in recipe.slow and not options.slow:
                    add(Row(title, recipe, problem="omitted: takes minutes (--slow)"))
                else:
                    arguments = name, number, split, target, options
                    add(measured(title, recipe, lambda a=arguments: measure(*a)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", nargs="+", choices=[OURS, *PEERS], metavar="PEER", help=f"of {OURS}, {', '.join(PEERS)}"
    )
    parser.add_argument("--data", nargs="+", choices=PROTOCOLS, default=list(PROTOCOLS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3, help=f"of fits below {SHORT:g} s; the median counts")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds for a recipe with all its fits")
    parser.add_argument("--slow", action="store_true", help="also what takes minutes")
    parser.add_argument("--no-search", action="store_false", dest="search", help="no seconds to the target RMSE")
    parser.add_argument("--no-install", action="store_true", help="take the environments as they are")
    options = parser.parse_args()
    command = " ".join(["make bench", *([f'ARGS="{shlex.join(sys.argv[1:])}"'] if sys.argv[1:] else [])])
    chosen, broken = options.only or [OURS, *PEERS], {}
    for name in chosen:
        if name != OURS and not options.no_install:
            try:
                install(name, PEERS[name], options.timeout)
            except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                broken[name] = text_of(str(error))
                print(f"{name}: {broken[name]}", flush=True)
    for data in options.data:
        section = render(PROTOCOLS[data], run(PROTOCOLS[data], chosen, broken, options), options, command)
        if options.only:
            print(f"\n{section}\n", flush=True)
        else:
            write_section(f"peers-{data}", section)


if __name__ == "__main__":
    main()
