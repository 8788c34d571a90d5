"""Fixtures of all packages."""

import logging
import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

# Tiny tensors: a second thread only waits, and on a busy machine it waits long. (Read when torch is imported.)
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Nothing may be looked for in, or written to, the user's own cache.
_cache = tempfile.TemporaryDirectory(prefix="cflightning-cache-")
os.environ["CFLIGHTNING_CACHE"] = _cache.name

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def repository():
    return REPOSITORY


@pytest.fixture(scope="session")
def real_data():
    """The folder with real data sets; tests that need one are marked `data`."""
    folder = Path(os.environ.get("CFLIGHTNING_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "ml-100k" / "u.data").is_file():
        pytest.skip(f"no real rating data at {folder}: set CFLIGHTNING_DATA")
    return folder


@pytest.fixture(autouse=True)
def _library_log(caplog):
    """Log lines reach caplog, and no handler of one test is left to the next."""
    caplog.set_level(logging.INFO, logger="cflightning")
    yield
    logging.getLogger("cflightning").handlers.clear()


TITLES = {1: "Toy Story (1995)", 2: "Café Müller (2001)", 3: "Se7en, or: Seven (1995)"}


@pytest.fixture(scope="session")
def movielens(tmp_path_factory):
    """Return a function that writes a synthetic data set in a published format and returns its folder or zip."""

    def make(edition: str, users: int = 20, items: int = 15, zipped: bool = False) -> Path:
        rng = np.random.default_rng(3)
        pairs = rng.permutation(users * items)[: users * items // 2]
        rows = [
            (p // items + 1, p % items + 1, rng.integers(1, 6), 900_000_000 + i) for i, p in enumerate(pairs.tolist())
        ]
        titles = {i: TITLES.get(i, f"Film {i}") for i in range(1, items + 1)}
        top = tmp_path_factory.mktemp("movielens")
        folder = top / edition
        folder.mkdir()

        def write(name, lines, encoding="utf-8"):
            (folder / name).write_bytes("".join(line + "\n" for line in lines).encode(encoding))

        if edition == "ml-100k":
            tab = ["\t".join(map(str, row)) for row in rows]
            write("u.data", tab)
            write("u.item", [f"{i}|{t}|01-Jan-1995||http://x|0|1" for i, t in titles.items()], "latin-1")
            write("u1.base", tab[len(tab) // 5 :])
            write("u1.test", tab[: len(tab) // 5])
        elif edition == "ml-1m":
            write("ratings.dat", ["::".join(map(str, row)) for row in rows])
            write("movies.dat", [f"{i}::{t}::Comedy|Drama" for i, t in titles.items()], "latin-1")
        else:
            write("ratings.csv", ["userId,movieId,rating,timestamp"] + [",".join(map(str, row)) for row in rows])
            write("movies.csv", ["movieId,title,genres"] + [f'{i},"{t}",Drama' for i, t in titles.items()])
        if not zipped:
            return folder
        with zipfile.ZipFile(top / f"{edition}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for file in folder.iterdir():
                archive.write(file, f"{edition}/{file.name}")
        return top / f"{edition}.zip"

    return make


@pytest.fixture(scope="session")
def run(tmp_path_factory, movielens):
    """A finished run of the command line on synthetic MovieLens data with ratings only."""
    from cflightning.cli.training.cli import TrainingCLI

    root = tmp_path_factory.mktemp("runs")
    cli = TrainingCLI(
        ["fit", "--data.path", str(movielens("ml-latest-small", 60, 40)), "--trainer.default_root_dir", str(root),
         "--data.split.val_fraction", "0.05", "--model.objective", "mse", "--model.dim", "8",
         "--trainer.max_epochs", "3", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    )  # fmt: skip
    logging.getLogger("cflightning").handlers.clear()
    return Path(cli.trainer.log_dir)


@pytest.fixture(scope="session")
def bundle(run, tmp_path_factory):
    """The bundle of that run."""
    from cflightning_export import export_bundle

    return export_bundle(run, tmp_path_factory.mktemp("bundles") / "bundle")
