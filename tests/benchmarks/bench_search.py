"""Top-10 items of one user by size of the catalogue, beside faiss and implicit on the same factors.

    python tests/benchmarks/bench_search.py [--items 3706 100000 1000000] [--python PATH]   (or: make bench-search)
    python tests/benchmarks/bench_search.py --crossover     (size from which two passes are faster; writes no section)

cflightning takes an id and returns ids and scores, with item biases; the other libraries use positions and no biases.
All run in one process on one thread, in turns of 100 users, p50: after shorter turns, the caches would hold the data of
the previous engine. The libraries are installed in an environment of their own, .venv-peers/search, created on the
first call; PATH names another one. The result is written to RESULTS.md.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
ENVIRONMENT = REPOSITORY / ".venv-peers" / "search"
NEEDED = ("faiss-cpu", "implicit", "onnxruntime", "numpy")
USERS, DIM, K, LISTS = 5000, 64, 10, 1000
BARS = {3706: 1.2, 100_000: 0.4, 1_000_000: 0.5}
ONE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def factors(items: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Create tables with the spectrum of a model of MovieLens 1M in a random basis, and varying norms."""
    rng = np.random.default_rng(seed)
    spectrum = np.exp(-np.arange(DIM) / 22)
    basis = np.linalg.qr(rng.standard_normal((DIM, DIM)))[0]

    def rows(count: int, scale: float, spread: float) -> np.ndarray:
        table = np.zeros((count + 1, DIM), np.float32)
        for low in range(1, count + 1, 100_000):
            block = table[low : low + 100_000]
            mixed = rng.standard_normal(block.shape) * spectrum @ basis
            block[:] = scale * mixed * rng.lognormal(0, spread, (len(block), 1))
        return table

    bias = np.append(0, 0.4 * rng.standard_normal(items)).astype(np.float32)
    return {"user": rows(USERS, 0.3, 0.3), "item": rows(items, 0.5, 0.5), "bias": bias}


def write_bundle(
    folder: Path,
    tables: dict[str, np.ndarray],
    ids: np.ndarray | None = None,
    min_two_pass_items: int | None = None,
    **known: dict,
) -> None:
    """Write the bundle of a network with these tables; user n has the id 3n, item n the id 2n or the n-th of ``ids``.

    ``known`` has titles and categories of a vocabulary.
    """
    import torch

    from cflightning.data.ids import Ids
    from cflightning.data.vocabulary import Vocabulary
    from cflightning.models.embedding_dot import EmbeddingDot
    from cflightning_export import bundle
    from cflightning_export.contents.networks import BundleNetworks
    from cflightning_export.graphs.base import BundleSource

    network = EmbeddingDot(len(tables["user"]), len(tables["item"]), DIM, (1.0, 5.0), std=0.0).eval()
    with torch.no_grad():
        network.user_factors.weight.copy_(torch.from_numpy(tables["user"]))
        network.item_factors.weight.copy_(torch.from_numpy(tables["item"]))
        network.item_bias.weight.copy_(torch.from_numpy(tables["bias"][:, None]))
    items = np.arange(1, len(tables["item"])) * 2 if ids is None else ids
    vocabulary = Vocabulary(Ids(np.arange(1, len(tables["user"])) * 3), Ids(items), **known)
    folder.mkdir()
    networks = BundleNetworks(network, network, dict.fromkeys(("score", "recommend"), "rating"))
    source = BundleSource(networks, vocabulary)
    if min_two_pass_items is not None:
        source = source._replace(min_two_pass_items=min_two_pass_items)
    bundle.write_bundle(folder, source, {})


def engines(folder: Path, tables: dict[str, np.ndarray]) -> tuple[dict, dict[str, str]]:
    """Return engine -> function of a user index, and engine -> reason for its absence."""
    from cflightning_serve import Scorer

    scorer = Scorer.load(folder, verify=False)
    found, missing = {"cflightning": lambda row: scorer.recommend(3 * row, K)}, {}
    users, items = tables["user"], tables["item"][1:]
    try:
        import faiss

        faiss.omp_set_num_threads(1)
        index = faiss.IndexFlatIP(DIM)
        index.add(items)
        found["faiss"] = lambda row: index.search(users[row : row + 1], K)
    except Exception as error:
        missing["faiss"] = repr(error)
    try:
        import scipy.sparse
        from implicit.cpu.als import AlternatingLeastSquares

        model = AlternatingLeastSquares(factors=DIM, num_threads=1)
        model.user_factors, model.item_factors = users, items
        none = scipy.sparse.csr_matrix((1, len(items)), dtype=np.float32)
        found["implicit"] = lambda row: model.recommend(row, none, N=K, filter_already_liked_items=False)
    except Exception as error:
        missing["implicit"] = repr(error)
    return found, missing


def measure(folder: Path) -> dict:
    """Measure the microseconds of each engine and the number of exact lists; printed as JSON."""
    tables = dict(np.load(folder / "factors.npz"))
    found, missing = engines(folder / "bundle", tables)
    users = np.random.default_rng(1).integers(1, USERS + 1, LISTS)
    items, turn = len(tables["item"]) - 1, 100
    rounds = {0: 20, 1: 10, 2: 3}[sum(items >= size for size in (20_000, 500_000))]
    spent: dict[str, list[float]] = {name: [] for name in found}
    for at in range(rounds + 1):
        for name, ask in found.items():
            for row in users[(turn * at + np.arange(turn)) % LISTS].tolist():
                start = time.perf_counter()
                ask(row)
                if at:
                    spent[name].append(time.perf_counter() - start)
    times = {name: float(np.median(seconds)) * 1e6 for name, seconds in spent.items()}
    return {"times": times, "missing": missing, "exact": exact_lists(found["cflightning"], tables, users)}


def exact_lists(ask, tables: dict[str, np.ndarray], users: np.ndarray) -> int:
    """Count the lists that equal sorting all scores; items whose scores agree in float32 may be exchanged."""
    vectors, bias = tables["item"][1:], tables["bias"][1:]
    exact = 0
    for low in range(0, len(users), 10):
        some = users[low : low + 10]
        near = np.argpartition(tables["user"][some] @ vectors.T + bias, -2 * K, axis=1)[:, -2 * K :]
        for row, candidates in zip(some.tolist(), near, strict=True):
            candidates = np.sort(candidates)
            scores = vectors[candidates].astype(float) @ tables["user"][row].astype(float) + bias[candidates]
            order = np.argsort(-scores, kind="stable")[:K]
            got = ask(row).items // 2 - 1
            value = vectors[got].astype(float) @ tables["user"][row].astype(float) + bias[got]
            size = np.linalg.norm(tables["user"][row]) * np.linalg.norm(vectors[got], axis=1).max()
            exact += len(set(got.tolist())) == K and bool(np.abs(value - scores[order]).max() <= 2e-7 * size)
    return exact


def environment() -> Path:
    """Return a Python interpreter with the other libraries."""
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", ENVIRONMENT], check=True)
    done = subprocess.run([python, "-m", "pip", "install", "-q", *NEEDED], check=False)
    if done.returncode:  # then cflightning only, with the reasons
        return Path(sys.executable)
    return python


def crossover() -> None:
    """Print the microseconds of one and of two passes, and of similar items, by the number of items."""
    from cflightning_serve import Scorer

    users = np.random.default_rng(1).integers(1, USERS + 1, 200).tolist()
    for items in (4000, 8000, 16_000, 32_000, 64_000):
        tables, asked = factors(items), []
        with tempfile.TemporaryDirectory() as scratch:
            for name, fewest in (("one", 10**9), ("two", 0)):
                write_bundle(Path(scratch) / name, tables, min_two_pass_items=fewest)
                asked.append(Scorer.load(Path(scratch) / name, verify=False))
            spent = np.array([[timed(scorer, user) for scorer in asked] for user in users for _ in range(3)])
        print(f"{items:7,} items: one pass {np.median(spent[:, 0]):6.0f} us, two {np.median(spent[:, 1]):6.0f} us")


def timed(scorer, user: int) -> float:
    start = time.perf_counter()
    scorer.recommend(3 * user, K)
    return (time.perf_counter() - start) * 1e6


def row(items: int, found: dict) -> str:
    times = found["times"]
    cells = [f"{times[name]:,.0f}" if name in times else found["missing"][name] for name in ("faiss", "implicit")]
    peers = [times[name] for name in ("faiss", "implicit") if name in times]
    ratio = f"**{times['cflightning'] / min(peers):.2f}**" if peers else "–"
    return (
        f"| {items:,} | {times['cflightning']:,.0f} | {' | '.join(cells)} | {ratio} | {BARS.get(items, '')} | "
        f"{found['exact']:,} of {LISTS:,} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=list(BARS))
    parser.add_argument("--python", type=Path, help="of an environment with faiss-cpu, implicit and onnxruntime")
    parser.add_argument("--crossover", action="store_true")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return
    if options.crossover:
        crossover()
        return
    python, rows = options.python or environment(), []
    for items in options.items:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            tables = factors(items)
            np.savez(folder / "factors.npz", **tables)
            write_bundle(folder / "bundle", tables)
            del tables
            variables = os.environ | ONE | {"PYTHONPATH": str(REPOSITORY / "serve")}
            command = [python, __file__, "--measure", folder]
            done = subprocess.run(command, env=variables, stdout=subprocess.PIPE, text=True, check=True)
        rows.append(row(items, json.loads(done.stdout)))
        print(rows[-1], flush=True)
    lines = [
        "## Recommendations of one user",
        "",
        f"{datetime.date.today()}, one thread, one process. `make bench-search`: the best {K} items of one user, "
        f"dim {DIM}, p50 in µs. Synthetic factors with the spectrum of a fitted model (singular values fall by a "
        "factor of 18, norms vary). cflightning includes the lookup of ids and item biases; the other libraries have "
        "neither. Exact: equal to sorting all scores in float64, up to float32 rounding.",
        "",
        "| items | cflightning | faiss, IndexFlatIP | implicit, recommend | ratio to the faster | bar | exact lists |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        *rows,
    ]
    from results import write_section

    write_section("search", "\n".join(lines))


if __name__ == "__main__":
    main()
