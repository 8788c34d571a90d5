"""All graphs of a bundle. A graph is added by a module with its builder and its verification, and a line here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx

from cflightning_export.graphs import catalogue, explain, fold_in, fold_in_implicit, history, score, similar, tables
from cflightning_export.graphs.base import BundleSource, GraphFamily

FAMILIES: tuple[GraphFamily, ...] = (
    score.GRAPHS,
    similar.GRAPHS,
    catalogue.GRAPHS,
    tables.GRAPHS,
    history.GRAPHS,
    fold_in.GRAPHS,
    fold_in_implicit.GRAPHS,
    explain.GRAPHS,
)


def build_graphs(source: BundleSource) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Yield (name, graph) of a bundle; each graph is built when it is requested, since all hold the tables."""
    for family in FAMILIES:
        yield from family.build(source)


def verify_graphs(folder: Path, source: BundleSource) -> None:
    """Compare every graph in a folder with the source.

    Raises:
        ExportError: a graph differs; the message says which one, for what input, and by how much.
    """
    for family in FAMILIES:
        family.verify(folder, source)
