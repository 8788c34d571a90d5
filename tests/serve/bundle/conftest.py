"""Fixtures for the tests of the bundle format."""

import pytest


@pytest.fixture
def compressed(bundles, tables, tmp_path):
    """Folder of a bundle with compressed titles and catalogue."""
    return bundles.pack(bundles.write_bundle(tmp_path / "compressed", bundles.make_rich(tables)))


@pytest.fixture
def larger(bundles, tmp_path):
    """A bundle with tables larger than a memory page, and its tables."""
    tables = bundles.make_tables(users=3000, items=5000, dim=16, titles=True)
    return bundles.write_bundle(tmp_path / "larger", tables), tables
