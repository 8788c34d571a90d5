"""Titles and catalogue of a bundle: compressed, damaged or missing."""

import gzip
import json
import shutil

import numpy as np
import pytest

from cflightning_serve import BundleError, InputError, Scorer


def test_titles_of_known_and_unknown_items(scorer, string_scorer, tables):
    assert scorer.title(-3) == "Film 0 (1900)"
    assert scorer.title(tables.item_ids[-1]) is None
    assert scorer.title(99_999) is None
    assert scorer.titles([0, 99_999, 3]) == ["Film 1 (1901)", None, "Film 2 (1902)"]
    assert scorer.titles([]) == []
    assert string_scorer.title("i0") is None
    with pytest.raises(InputError, match="item must be one id, got 2"):
        scorer.title([0, 3])


def test_compressed_files_are_read_like_plain_ones(bundles, tables, compressed, tmp_path):
    assert not list(compressed.glob("titles.json")) + list(compressed.glob("catalogue.json"))
    scorer = Scorer.load(compressed, eager=True)
    plain = Scorer.load(bundles.write_bundle(tmp_path / "plain", bundles.make_rich(tables)), eager=True)
    assert scorer.titles(tables.item_ids) == plain.titles(tables.item_ids)
    assert scorer.title(0) == "Film 1 (1901)"
    assert scorer.catalogue.ids.tolist() == plain.catalogue.ids.tolist()
    assert scorer.catalogue.counts.tolist() == plain.catalogue.counts.tolist()
    assert list(scorer.catalogue.categories) == list(plain.catalogue.categories)
    for user in (10, -1):
        left, right = (case.recommend(user, 5, categories="Drama") for case in (scorer, plain))
        assert left.items.tolist() == right.items.tolist()


@pytest.mark.parametrize("name", ["titles", "catalogue"])
@pytest.mark.parametrize(
    ("change", "match"),
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
def test_invalid_compressed_files_are_refused(bundles, compressed, name, change, match):
    path = compressed / f"{name}.json.gz"
    path.write_bytes(change(path.read_bytes()))
    bundles.reseal(compressed)
    with pytest.raises(BundleError, match=rf"{name}\.json\.gz.*{match}"):
        Scorer.load(compressed, eager=True)


def test_random_damage_of_a_compressed_file_is_refused_or_has_no_effect(bundles, compressed, tables):
    rng = np.random.default_rng(0)
    data = (compressed / "titles.json.gz").read_bytes()
    titles, refused = Scorer.load(compressed).titles(tables.item_ids), 0
    for _ in range(80):
        at = int(rng.integers(len(data)))
        (compressed / "titles.json.gz").write_bytes(
            data[:at] + bytes([data[at] ^ (1 << rng.integers(8))]) + data[at + 1 :]
        )
        bundles.reseal(compressed)
        try:
            assert Scorer.load(compressed).titles(tables.item_ids) == titles  # for instance, the time in the header
        except BundleError:
            refused += 1
    assert refused > 40


def test_the_manifest_lists_compressed_files(compressed):
    manifest = json.loads((compressed / "manifest.json").read_text())
    assert (manifest["titles"], manifest["catalogue"]) == ("titles.json.gz", "catalogue.json.gz")


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize("text", ['{"0": "\\ud800"}', '{"\\udc00": "a"}'])
def test_titles_that_are_not_unicode_are_refused(bundles, copy, text, eager):
    (copy / "titles.json").write_text(text)
    bundles.reseal(copy)
    with pytest.raises(BundleError, match=r"titles.json: must be UTF-8 JSON, is not: .*surrogates not allowed"):
        Scorer.load(copy, eager=eager).title(0)


def test_titles_with_escaped_characters_are_read(bundles, copy):
    (copy / "titles.json").write_text('{"0": "\\ud83d\\ude00 \\u00e9"}')
    bundles.reseal(copy)
    assert Scorer.load(copy).title(0) == "\U0001f600 é"


@pytest.mark.parametrize("text", ["[]", '{"1": 2}', "{", '{"1": null}', ""])
def test_invalid_titles_are_refused(bundles, copy, text):
    (copy / "titles.json").write_text(text)
    bundles.reseal(copy)
    scorer = Scorer.load(copy)
    with pytest.raises(BundleError, match=r"titles.json: must be"):
        scorer.title(0)
    assert scorer.recommend(10)


@pytest.mark.parametrize(
    "change",
    [
        {"item": [1, 2]},
        {"item": [str(n) for n in range(11)]},
        {"item": [2**70, *range(10)]},
        {"count": [1.5] * 11},
        {"count": [-1] * 11},
        {"count": [1]},
        {"categories": []},
        {"categories": {"Drama": [11]}},
        {"categories": {"Drama": [-1]}},
        {"categories": {"Drama": [True]}},
        {"categories": {"Drama": 3}},
        None,
    ],
)
def test_invalid_catalogues_are_refused(bundles, tables, tmp_path, change):
    folder = bundles.write_bundle(tmp_path / "bundle", bundles.make_rich(tables))
    manifest = json.loads((folder / "manifest.json").read_text())
    catalogue = json.loads((folder / "catalogue.json").read_text())
    (folder / "catalogue.json").write_text(json.dumps([] if change is None else catalogue | change))
    bundles.write_manifest(folder, {key: value for key, value in manifest.items() if key != "files"})
    with pytest.raises(BundleError, match=r"catalogue\.json"):
        Scorer.load(folder).recommend(10, categories="Drama")


def test_the_catalogue_must_be_a_file_of_the_manifest(bundles, tables, tmp_path):
    folder = bundles.write_bundle(tmp_path / "bundle", bundles.make_rich(tables))
    manifest = json.loads((folder / "manifest.json").read_text())
    assert Scorer.load(folder).manifest.catalogue == "catalogue.json"
    for name in ("other.json", "../catalogue.json", 5):
        bundles.seal(folder, manifest | {"catalogue": name})
        with pytest.raises(BundleError, match="catalogue"):
            Scorer.load(folder)
    bundles.seal(folder, manifest | {"catalogue": None})
    assert Scorer.load(folder).manifest.catalogue is None
    shutil.rmtree(folder)
