"""Catalogue and titles of a bundle."""

import gzip
import json
from dataclasses import replace

from cflightning.tasks.loading import load_task
from cflightning_export.contents.item_metadata import write_catalogue, write_titles


def test_a_catalogue_without_counts_and_categories(run, tmp_path):
    vocabulary = load_task(run / "checkpoints" / "best.ckpt").vocabulary
    name = write_catalogue(tmp_path, replace(vocabulary, counts=None, categories={}))
    assert name == "catalogue.json.gz"
    catalogue = json.loads(gzip.decompress((tmp_path / name).read_bytes()))
    assert catalogue == {"item": vocabulary.items.values.tolist(), "count": None, "categories": {}}


def test_titles_are_compressed_unless_readers_would_not_decompress_them(run, tmp_path):
    vocabulary = load_task(run / "checkpoints" / "best.ckpt").vocabulary
    names = []
    for n, titles in enumerate((vocabulary.titles, vocabulary.titles, {1: "x" * (1 << 25)}, {})):
        (tmp_path / str(n)).mkdir()
        names.append(write_titles(tmp_path / str(n), replace(vocabulary, titles=titles)))
    assert names == ["titles.json.gz", "titles.json.gz", "titles.json", None]
    assert [path.name for path in sorted(tmp_path.rglob("*.json*"))] == names[:3]
    packed = [(tmp_path / n / "titles.json.gz").read_bytes() for n in "01"]
    assert packed[0] == packed[1]
    assert json.loads(gzip.decompress(packed[0])) == {str(key): title for key, title in vocabulary.titles.items()}
    assert json.loads((tmp_path / "2" / "titles.json").read_bytes()) == {"1": "x" * (1 << 25)}
