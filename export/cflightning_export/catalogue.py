"""``catalogue.json``: what is known of the items beside their factors."""

from __future__ import annotations

import json
from pathlib import Path

from cflightning.data.vocabulary import Vocabulary


def write_catalogue(path: Path, vocabulary: Vocabulary) -> None:
    """Write ids in the order of their rows, training rows of each where they are known, and categories."""
    catalogue = {
        "item": vocabulary.items.values.tolist(),
        "count": None if vocabulary.counts is None else vocabulary.counts.tolist(),
        "categories": {name: numbers.tolist() for name, numbers in vocabulary.categories.items()},
    }
    path.write_text(json.dumps(catalogue, ensure_ascii=False), encoding="utf-8")
