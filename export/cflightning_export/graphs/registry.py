"""The graphs of a bundle, each a module with builder and verification. Another package adds its own by `register`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx

from cflightning_export.graphs import (
    catalogue,
    explain,
    fold_in,
    fold_in_autoencoder,
    fold_in_implicit,
    history,
    score,
    similar,
    tables,
    user_search,
)
from cflightning_export.graphs.base import BundleSource, GraphFamily

_families: list[GraphFamily] = [
    score.GRAPHS,
    similar.GRAPHS,
    catalogue.GRAPHS,
    tables.GRAPHS,
    user_search.GRAPHS,
    history.GRAPHS,
    fold_in.GRAPHS,
    fold_in_implicit.GRAPHS,
    fold_in_autoencoder.GRAPHS,
    explain.GRAPHS,
]


def register(family: GraphFamily) -> None:
    """Add graphs to every bundle that is exported from now on; their signatures must be in `SIGNATURES`."""
    _families.append(family)


def unregister(family: GraphFamily) -> None:
    """Forget graphs."""
    _families.remove(family)


def build_graphs(source: BundleSource) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Yield (name, graph) of a bundle; each graph is built when it is requested, since all hold the tables."""
    for family in _families:
        yield from family.build(source)


def verify_graphs(folder: Path, source: BundleSource) -> None:
    """Compare every graph in a folder with the source.

    Raises:
        ExportError: a graph differs; the message has its name, the input, and the difference.
    """
    for family in _families:
        family.verify(folder, source)
