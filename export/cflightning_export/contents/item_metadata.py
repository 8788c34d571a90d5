"""Catalogue and titles of a bundle: JSON files, compressed by gzip."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path

from cflightning.data.vocabulary import Vocabulary
from cflightning_serve.bundle.files import MAX_COMPRESSION_RATIO, MAX_PLAIN_BYTES


def write_catalogue(folder: Path, vocabulary: Vocabulary) -> str:
    """Write item ids in the order of their indices, their training rows if known, and categories.

    Returns:
        Name of the file.
    """
    catalogue = {
        "item": vocabulary.items.values.tolist(),
        "count": None if vocabulary.counts is None else vocabulary.counts.tolist(),
        "categories": {name: positions.tolist() for name, positions in vocabulary.categories.items()},
    }
    return _write(folder, "catalogue.json", catalogue)


def write_titles(folder: Path, vocabulary: Vocabulary) -> str | None:
    """Write the titles of items that have one.

    Returns:
        Name of the file; None if there are no titles, and so no file.
    """
    if not vocabulary.titles:
        return None
    return _write(folder, "titles.json", {str(item): title for item, title in vocabulary.titles.items()})


def _write(folder: Path, name: str, document: Mapping[str, object]) -> str:
    data = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    compressed = gzip.compress(data, mtime=0)  # without the time, equal documents give equal bytes
    if len(data) <= MAX_PLAIN_BYTES + MAX_COMPRESSION_RATIO * len(compressed):
        name, data = f"{name}.gz", compressed
    (folder / name).write_bytes(data)
    return name
