"""Titles and catalogue that are packed by gzip: read as plain ones, and refused where they are not what they seem."""

import gzip
import json
import tracemalloc

import numpy as np
import pytest

from cflightning_serve import BundleError, Scorer
from cflightning_serve.bundle.files import decompress

MEGABYTES = 1 << 20


@pytest.fixture
def packed(bundles, tables, tmp_path):
    return bundles.pack(bundles.write_bundle(tmp_path / "packed", bundles.make_rich(tables)))


def test_they_are_read_as_plain_ones(bundles, tables, packed, tmp_path):
    assert not list(packed.glob("titles.json")) + list(packed.glob("catalogue.json"))
    scorer = Scorer.load(packed, eager=True)
    plain = Scorer.load(bundles.write_bundle(tmp_path / "plain", bundles.make_rich(tables)), eager=True)
    assert scorer.titles(tables.item_ids) == plain.titles(tables.item_ids)
    assert scorer.title(0) == "Film 1 (1901)"
    assert scorer.catalogue.ids.tolist() == plain.catalogue.ids.tolist()
    assert scorer.catalogue.counts.tolist() == plain.catalogue.counts.tolist()
    assert list(scorer.catalogue.categories) == list(plain.catalogue.categories)
    for user in (10, -1):
        asked = [one.recommend(user, 5, categories="Drama") for one in (scorer, plain)]
        assert asked[0].items.tolist() == asked[1].items.tolist()


@pytest.mark.parametrize("name", ["titles", "catalogue"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data[:-1], "is truncated"),
        (lambda data: data[: len(data) // 2], "is truncated"),
        (lambda data: b"", "is truncated"),
        (lambda data: data + b"x", "has data after its end"),
        (lambda data: data + data, "has data after its end"),
        (gzip.decompress, "must be a gzip file"),
        (lambda data: data[:-8] + bytes(4) + data[-4:], "must be a gzip file"),  # another checksum
        (gzip.compress, "must be UTF-8 JSON"),
        (lambda data: gzip.compress(b'{"1": NaN}'), "NaN is not JSON"),
    ],
)
def test_what_is_no_packed_json_is_refused(bundles, packed, name, change, said):
    path = packed / f"{name}.json.gz"
    path.write_bytes(change(path.read_bytes()))
    bundles.reseal(packed)
    with pytest.raises(BundleError, match=rf"{name}\.json\.gz.*{said}"):
        Scorer.load(packed, eager=True)


def test_damage_at_random_is_refused_or_changes_nothing(bundles, packed, tables):
    rng = np.random.default_rng(0)
    data = (packed / "titles.json.gz").read_bytes()
    titles, refused = Scorer.load(packed).titles(tables.item_ids), 0
    for _ in range(200):
        at = int(rng.integers(len(data)))
        (packed / "titles.json.gz").write_bytes(data[:at] + bytes([data[at] ^ (1 << rng.integers(8))]) + data[at + 1 :])
        bundles.reseal(packed)
        try:
            assert Scorer.load(packed).titles(tables.item_ids) == titles  # a bit of the header, such as its time
        except BundleError:
            refused += 1
    assert refused > 100


def test_a_bomb_is_refused_before_it_is_unpacked(bundles, packed):
    bomb = gzip.compress(b'{"1": "' + bytes(200 * MEGABYTES) + b'"}')
    assert len(bomb) < MEGABYTES
    (packed / "titles.json.gz").write_bytes(bomb)
    bundles.reseal(packed)
    scorer = Scorer.load(packed)
    tracemalloc.start()
    try:
        with pytest.raises(BundleError, match=r"titles\.json\.gz: must decompress to at most [\d,]+ bytes"):
            scorer.title(0)
        assert tracemalloc.get_traced_memory()[1] < 70 * MEGABYTES
    finally:
        tracemalloc.stop()


def test_what_the_limit_allows(tmp_path):
    path = tmp_path / "a.json.gz"

    def written(size):
        path.write_bytes(gzip.compress(b"[" + b" " * (size - 2) + b"]", mtime=0))
        return 16 * MEGABYTES + 64 * path.stat().st_size

    limit = 17 * MEGABYTES
    while (found := written(limit)) != limit:  # which depends on what so many bytes are packed in
        limit = found
    assert len(decompress(path, path.read_bytes())) == limit
    with pytest.raises(BundleError, match=f"at most {written(limit + 1):,} bytes"):
        decompress(path, path.read_bytes())


def test_the_manifest_names_them(packed):
    manifest = json.loads((packed / "manifest.json").read_text())
    assert (manifest["titles"], manifest["catalogue"]) == ("titles.json.gz", "catalogue.json.gz")
