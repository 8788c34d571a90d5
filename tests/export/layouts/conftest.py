"""Bundles written by the second writer, which the tests of the serving package use."""

import importlib.util
import sys
from pathlib import Path

import pytest

BUNDLES = Path(__file__).parents[2] / "serve" / "bundles.py"


@pytest.fixture(scope="session")
def bundles():
    """The module that writes bundles."""
    spec = importlib.util.spec_from_file_location("layout_tests_bundles", BUNDLES)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def kinds(bundles):
    """Name -> tables."""
    return {
        "ratings": bundles.make_tables(titles=True),
        "strings": bundles.make_tables(strings=True, seed=1),
        "choices": bundles.make_tables(choices=True, seed=2),
        "both": bundles.make_both(bundles.make_tables(seed=3)),
    }


@pytest.fixture(scope="session", params=["ratings", "strings", "choices", "both"])
def tables(request, kinds):
    return kinds[request.param]


@pytest.fixture(scope="session")
def bundle(bundles, tables, tmp_path_factory):
    """Folder of a bundle that tests must not change."""
    return bundles.pack(bundles.write_bundle(tmp_path_factory.mktemp("bundles") / "bundle", tables))


@pytest.fixture
def copy(bundles, kinds, tmp_path):
    """A bundle of one's own, to damage."""
    return bundles.write_bundle(tmp_path / "bundle", kinds["ratings"])
