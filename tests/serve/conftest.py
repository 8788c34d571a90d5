"""Bundles for the tests of the serving package."""

import importlib.util
import os
import shutil
import sys
from pathlib import Path

import pytest

from cflightning_serve import Scorer
from cflightning_serve.bundle.item_metadata import ItemMetadata
from cflightning_serve.bundle.loaded_files import LoadedFiles
from cflightning_serve.bundle.sessions import GraphSessions

HERE = Path(__file__).parent


def _by_path(name: str):
    """Tests are no package: their helpers are loaded from where they lie."""
    spec = importlib.util.spec_from_file_location(f"serve_tests_{name}", HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def bundles():
    """The module that writes bundles."""
    return _by_path("bundles")


@pytest.fixture(scope="session")
def new_rows():
    """The module that adds graphs of new users to them."""
    return _by_path("new_rows")


@pytest.fixture(scope="session")
def make_golden():
    """The script that writes the golden bundle."""
    return _by_path("make_golden")


@pytest.fixture(scope="session")
def tables(bundles):
    """Integer ids, with titles."""
    return bundles.make_tables(titles=True)


@pytest.fixture(scope="session")
def string_tables(bundles):
    """String ids, without titles."""
    return bundles.make_tables(strings=True, seed=1)


@pytest.fixture(scope="session")
def choice_tables(bundles):
    """Choices alone."""
    return bundles.make_tables(choices=True, seed=2)


@pytest.fixture(scope="session")
def mixed_tables(bundles, tables):
    """Ratings, and choices beside them."""
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


@pytest.fixture(scope="session", params=["int", "string", "choice", "mixed"])
def rich(request, bundles, tmp_path_factory):
    """Scorer and tables of bundles that know a catalogue and a history, as the exporter writes them."""
    prefix = "" if request.param == "int" else f"{request.param}_"
    tables = bundles.make_rich(request.getfixturevalue(f"{prefix}tables"))
    return Scorer.load(bundles.write_bundle(tmp_path_factory.mktemp("bundles") / "rich", tables)), tables


@pytest.fixture
def copy(bundle, tmp_path):
    """A bundle of one's own, to damage."""
    return Path(shutil.copytree(bundle, tmp_path / "bundle"))


@pytest.fixture
def environment():
    """For a fresh interpreter that must find the package even where it is not installed."""
    path = os.pathsep.join(filter(None, [str(HERE.parents[1] / "serve"), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path}


@pytest.fixture(scope="session")
def in_small_blocks():
    """Function from a scorer to one of the same bundle that runs graphs in blocks of few elements."""

    def make(scorer: Scorer, block_size: int = 30) -> Scorer:
        manifest = scorer.manifest
        files = LoadedFiles.load(manifest)
        return Scorer(GraphSessions(manifest, files, block_size=block_size), ItemMetadata(manifest, files))

    return make
