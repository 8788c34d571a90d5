"""Fixtures for the tests of the serving package: bundles of an independent writer, and their scorers."""

import importlib.util
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from cflightning_serve import Scorer
from cflightning_serve.bundle.item_metadata import ItemMetadata
from cflightning_serve.bundle.loaded_files import LoadedFiles
from cflightning_serve.bundle.sessions import GraphSessions

HERE = Path(__file__).parent


def _load_module(name: str):
    """Load a helper module by its path, because the tests are not a package."""
    spec = importlib.util.spec_from_file_location(f"serve_tests_{name}", HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up their module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def bundles():
    """The module that writes bundles."""
    return _load_module("bundles")


@pytest.fixture(scope="session")
def fold_in_graphs():
    """The module that adds graphs of new users to bundles."""
    return _load_module("fold_in_graphs")


@pytest.fixture(scope="session")
def make_golden():
    """The script that writes golden bundles."""
    return _load_module("make_golden")


@pytest.fixture(scope="session")
def tables(bundles):
    """Tables with integer ids and titles."""
    return bundles.make_tables(titles=True)


@pytest.fixture(scope="session")
def string_tables(bundles):
    """Tables with string ids, without titles."""
    return bundles.make_tables(strings=True, seed=1)


@pytest.fixture(scope="session")
def choice_tables(bundles):
    """Tables of a model that predicts interactions only."""
    return bundles.make_tables(choices=True, seed=2)


@pytest.fixture(scope="session")
def mixed_tables(bundles, tables):
    """Tables of a model that predicts ratings and recommends by interactions."""
    return bundles.make_both(tables)


@pytest.fixture(scope="session")
def bundle(bundles, tables, tmp_path_factory):
    """Folder of a bundle that tests must not change."""
    return bundles.write_bundle(tmp_path_factory.mktemp("bundles") / "int", tables)


@pytest.fixture(scope="session")
def string_bundle(bundles, string_tables, tmp_path_factory):
    return bundles.write_bundle(tmp_path_factory.mktemp("bundles") / "string", string_tables)


@pytest.fixture(scope="session")
def choice_bundle(bundles, choice_tables, tmp_path_factory):
    return bundles.write_bundle(tmp_path_factory.mktemp("bundles") / "choice", choice_tables)


@pytest.fixture(scope="session")
def mixed_bundle(bundles, mixed_tables, tmp_path_factory):
    return bundles.write_bundle(tmp_path_factory.mktemp("bundles") / "mixed", mixed_tables)


@pytest.fixture(scope="session")
def scorer(bundle):
    return Scorer.load(bundle)


@pytest.fixture(scope="session")
def string_scorer(string_bundle):
    return Scorer.load(string_bundle)


@pytest.fixture(scope="session")
def choice_scorer(choice_bundle):
    return Scorer.load(choice_bundle)


@pytest.fixture(scope="session")
def mixed_scorer(mixed_bundle):
    return Scorer.load(mixed_bundle)


@pytest.fixture(scope="session", params=["int", "string", "choice"])
def plain(request):
    """Scorer and tables of bundles with the required graphs only."""
    prefix = "" if request.param == "int" else f"{request.param}_"
    return request.getfixturevalue(f"{prefix}scorer"), request.getfixturevalue(f"{prefix}tables")


@pytest.fixture(scope="session", params=["int", "string", "choice", "mixed"])
def rich(request, bundles, tmp_path_factory):
    """Scorer and tables of bundles with catalogue and history."""
    prefix = "" if request.param == "int" else f"{request.param}_"
    tables = bundles.make_rich(request.getfixturevalue(f"{prefix}tables"))
    return Scorer.load(bundles.write_bundle(tmp_path_factory.mktemp("bundles") / "rich", tables)), tables


@pytest.fixture(scope="session")
def make_folded(request, bundles, fold_in_graphs, tmp_path_factory):
    """Function from the name of a fixture of tables to scorer and tables of a bundle with fold-in graphs."""
    cases = {}

    def make(name):
        if name not in cases:
            tables = request.getfixturevalue(name)
            folder = bundles.write_bundle(tmp_path_factory.mktemp("folded") / name, tables)
            cases[name] = Scorer.load(fold_in_graphs.add(folder, tables, bundles)), tables
        return cases[name]

    return make


@pytest.fixture(params=["tables", "string_tables", "choice_tables", "mixed_tables"])
def folded(request, make_folded):
    """Scorer and tables of bundles with fold-in graphs."""
    return make_folded(request.param)


@pytest.fixture(scope="session")
def in_small_blocks():
    """Function from a scorer to one of the same bundle that calls its graphs with few elements."""

    def make(scorer: Scorer, block_size: int = 30) -> Scorer:
        manifest = scorer.manifest
        files = LoadedFiles.load(manifest)
        return Scorer(GraphSessions(manifest, files, block_size=block_size), ItemMetadata(manifest, files))

    return make


@pytest.fixture(scope="session")
def assert_same_top_k():
    """Function that compares two sequences of top-k lists: equal items, scores up to rounding."""

    def check(left, right):
        assert len(left) == len(right)
        for a, b in zip(left, right, strict=True):
            assert a.items.tolist() == b.items.tolist()
            np.testing.assert_allclose(a.scores, b.scores, rtol=1e-5, atol=1e-6)

    return check


@pytest.fixture
def copy(bundle, tmp_path):
    """A copy of a bundle that the test can damage."""
    return Path(shutil.copytree(bundle, tmp_path / "bundle"))


@pytest.fixture
def environment():
    """Environment variables of a process that finds the package even if it is not installed."""
    path = os.pathsep.join(filter(None, [str(HERE.parents[1] / "serve"), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path}
