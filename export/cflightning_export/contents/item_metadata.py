"""What is known of the items beside their factors, in JSON that is packed by gzip: titles, and the catalogue."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from cflightning.data.vocabulary import Vocabulary

PLAIN, RATIO = 1 << 24, 64
"""Readers unpack at most so many bytes, and so many for each packed one."""


def write_catalogue(folder: Path, vocabulary: Vocabulary) -> str:
    """Write ids in the order of their rows, training rows of each where they are known, and categories.

    Returns:
        Name of the file.
    """
    catalogue = {
        "item": vocabulary.items.values.tolist(),
        "count": None if vocabulary.counts is None else vocabulary.counts.tolist(),
        "categories": {name: numbers.tolist() for name, numbers in vocabulary.categories.items()},
    }
    return _write(folder, "catalogue.json", catalogue)


def write_titles(folder: Path, vocabulary: Vocabulary) -> str | None:
    """Write the titles of items that have one.

    Returns:
        Name of the file; None where there are no titles, and no file.
    """
    if not vocabulary.titles:
        return None
    return _write(folder, "titles.json", {str(key): title for key, title in vocabulary.titles.items()})


def _write(folder: Path, name: str, document: Any) -> str:
    data = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    packed = gzip.compress(data, mtime=0)  # without the time, the same bytes again
    if len(data) <= PLAIN + RATIO * len(packed):
        name, data = f"{name}.gz", packed
    (folder / name).write_bytes(data)
    return name
