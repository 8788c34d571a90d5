"""Every reason for which a bundle is refused, and how it is said."""

import json
import os
import re

import pytest

from cflightning_serve import BundleError, Manifest, Scorer

EVERY_FILE = ["manifest.json", "score.onnx", "recommend.onnx", "similar.onnx", "weights.bin", "titles.json"]


def refused(folder, match, **options):
    with pytest.raises(BundleError, match=match) as caught:
        Scorer.load(folder, **options)
    assert isinstance(caught.value, ValueError)
    return str(caught.value)


def edit(bundles, folder, change):
    """Change the manifest and sign it again, so that only the change is wrong."""
    raw = json.loads((folder / "manifest.json").read_text("utf-8"))
    change(raw)
    bundles.seal(folder, raw)


def test_what_the_manifest_says(bundle, tables):
    manifest = Manifest.read(bundle)
    assert manifest.folder == bundle.resolve()
    assert (manifest.num_users, manifest.num_items, manifest.dim) == (8, 12, 4)
    assert (manifest.user_ids, manifest.item_ids) == ("int64", "int64")
    assert manifest.rating_range == (0.5, 5.0)
    assert manifest.units == {"score": "rating", "recommend": "rating"}
    assert manifest.metrics == {"test/rmse": 0.875}
    assert manifest.graphs["recommend"] == "recommend.onnx"
    assert set(manifest.files) == set(EVERY_FILE) - {"manifest.json"}
    assert manifest.files["weights.bin"].bytes == (bundle / "weights.bin").stat().st_size
    with pytest.raises(AttributeError):
        manifest.dim = 5
    assert Scorer.load(str(bundle)).manifest == manifest


# Files ----------------------------------------------------------------------------------------------------------------


def test_no_folder(tmp_path):
    refused(tmp_path / "absent", "absent: must be the folder of a bundle, does not exist")


def test_a_file_instead_of_a_folder(copy):
    refused(copy / "weights.bin", "weights.bin: must be the folder of a bundle, is a file")


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("name", EVERY_FILE)
def test_a_missing_file(copy, name, verify):
    (copy / name).unlink()
    refused(copy, f"{name}: must be a file of the bundle, is missing; copy or export", verify=verify)


@pytest.mark.parametrize("name", EVERY_FILE)
def test_a_folder_instead_of_a_file(copy, name):
    (copy / name).unlink()
    (copy / name).mkdir()
    refused(copy, f"{name}: must be a file of the bundle, is not a regular file")


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("name", EVERY_FILE[1:])
def test_a_truncated_file(copy, name, verify):
    path = copy / name
    size = path.stat().st_size
    os.truncate(path, size - 1)
    refused(copy, f"{name}: must have {size:,} bytes, has {size - 1:,}: truncated or replaced", verify=verify)


@pytest.mark.parametrize("where", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("name", EVERY_FILE[1:])
def test_one_flipped_bit(copy, name, where):
    path = copy / name
    data = bytearray(path.read_bytes())
    data[int(where * len(data))] ^= 1
    path.write_bytes(data)
    refused(copy, f"{name}: its sha256 differs from the manifest's: damaged or edited")


def test_one_flipped_bit_anywhere_in_the_manifest(copy):
    path = copy / "manifest.json"
    whole = path.read_bytes()
    accepted = []
    for at in range(len(whole)):
        data = bytearray(whole)
        data[at] ^= 1
        path.write_bytes(data)
        try:
            Scorer.load(copy)
        except BundleError as error:
            assert str(error).startswith(str(copy))  # noqa: PT017  # a loop: no pytest.raises
        else:
            accepted.append(chr(whole[at]))
    assert set(accepted) <= set(" \n")  # white space between tokens says nothing


def test_a_symbolic_link(copy, tmp_path):
    for name in EVERY_FILE:
        (copy / name).rename(tmp_path / name)
        (copy / name).symlink_to(tmp_path / name)
        refused(copy, f"{name}: must be a regular file inside the bundle, is a symbolic link")
        (copy / name).unlink()
        (tmp_path / name).rename(copy / name)
    Scorer.load(copy)


def test_files_without_permission(bundle, monkeypatch):
    def deny(path, *_):
        raise PermissionError(13, "Permission denied", path)

    manifest = Manifest.read(bundle)
    monkeypatch.setattr(os, "open", deny)
    with pytest.raises(BundleError, match=r"\.(onnx|bin|json): cannot be read: Permission denied; check its name and"):
        manifest.verify()
    refused(bundle, "manifest.json: cannot be read: Permission denied")


def test_a_name_that_no_folder_can_have():
    refused("x" * 5000, "cannot be read: File name too long")


def test_unverified_means_without_digests(copy):
    data = bytearray((copy / "weights.bin").read_bytes())
    data[-1] ^= 1
    (copy / "weights.bin").write_bytes(data)
    refused(copy, "sha256")
    assert Scorer.load(copy, verify=False).recommend(10)


def test_files_that_the_manifest_does_not_name_are_ignored(copy):
    (copy / "notes.txt").write_text("mine")
    assert Scorer.load(copy).score(10, 0)


# The manifest ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"not JSON", b"\xff\xfe{", b'{"a": NaN}', b'{"a": Infinity}', b"[" * 100_000],
    ids=["empty", "cut", "words", "no UTF-8", "NaN", "Infinity", "deep"],
)
def test_no_json(copy, text):
    (copy / "manifest.json").write_bytes(text)
    refused(copy, "manifest.json: must be UTF-8 JSON, is not: ")


@pytest.mark.parametrize(("text", "type_"), [("[]", "array"), ("1", "integer"), ("null", "null"), ("true", "boolean")])
def test_no_object(copy, text, type_):
    (copy / "manifest.json").write_text(text)
    refused(copy, f"manifest.json: must be one JSON object, is of type {type_}")


def test_something_else(copy):
    (copy / "manifest.json").write_text('{"name": "an npm package"}')
    refused(copy, '"format" must be "cflightning-bundle", is None; this is not the manifest of a bundle')


def test_a_newer_format_is_refused_before_anything_else_is_read(copy):
    raw = {"format": "cflightning-bundle", "format_version": 3, "written_by": "cflightning 9.1"}
    (copy / "manifest.json").write_text(json.dumps(raw))
    said = refused(copy, "format 3, written by cflightning 9.1, is newer than this reader")
    assert "formats up to 2; upgrade cflightning-serve" in said


@pytest.mark.parametrize("version", [0, -1, "1", 1.0, True, None])
def test_a_version_that_is_none(bundles, copy, version):
    edit(bundles, copy, lambda raw: raw.update(format_version=version))
    refused(copy, '"format_version" must be an integer from 1')


def test_an_edit_by_hand(copy):
    path = copy / "manifest.json"
    path.write_text(path.read_text().replace("0.875", "0.675"))
    refused(copy, "its own sha256 differs from its contents: damaged or edited by hand")


@pytest.mark.parametrize("digest", [None, 1, "", "0" * 64])
def test_a_wrong_digest_of_its_own(copy, digest):
    raw = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(raw | {"sha256": digest}))
    refused(copy, "sha256")


def test_order_and_white_space_do_not_matter(copy):
    path = copy / "manifest.json"
    raw = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(raw.items())), indent=7))
    Scorer.load(copy)


def test_unknown_keys_are_ignored(bundles, copy):
    edit(bundles, copy, lambda raw: raw.update(note="später", graphs=raw["graphs"] | {"explain": "score.onnx"}))
    assert Scorer.load(copy).score(10, 0)


KEYS = "format_version written_by created model dim ids num_users num_items rating_range metrics graphs titles files"


@pytest.mark.parametrize("key", KEYS.split())
def test_a_missing_key(bundles, copy, key):
    edit(bundles, copy, lambda raw: raw.pop(key))
    refused(copy, f'"{key}" must be ')


@pytest.mark.parametrize("key", KEYS.split())
def test_a_key_of_the_wrong_type(bundles, copy, key):
    edit(bundles, copy, lambda raw: raw.update({key: True}))
    said = refused(copy, f'"{key}" must be ')
    assert re.search(r"is (boolean|True)", said)


ENTRY = {"bytes": 1, "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"dim": -1}, '"dim" must be at least 0, is -1'),
        ({"num_users": 0}, '"num_users" must be at least 1, is 0'),
        ({"num_items": 1.0}, '"num_items" must be integer, is number'),
        ({"ids": {"user": "int64"}}, '"ids" -> "item" must be "int64" or "string", is None'),
        ({"ids": {"user": "int32", "item": "int64"}}, '"ids" -> "user" must be "int64" or "string", is \'int32\''),
        ({"ids": {"user": [], "item": "int64"}}, '"ids" -> "user" must be'),
        ({"rating_range": [1]}, '"rating_range" must be two float32 numbers'),
        ({"rating_range": [5, 1]}, '"rating_range" must be two float32 numbers, the lower one first'),
        ({"rating_range": ["1", "5"]}, '"rating_range" must be two float32 numbers'),
        ({"rating_range": [False, True]}, '"rating_range" must be two float32 numbers'),
        ({"rating_range": "1-5"}, '"rating_range" must be array or null, is string'),
        ({"metrics": {"test/rmse": "0.9"}}, '"metrics" -> "test/rmse" must be a number, is string'),
        ({"metrics": []}, '"metrics" must be object, is array'),
        ({"graphs": {"score": "score.onnx", "similar": "similar.onnx"}}, '"graphs" -> "recommend" must be present'),
        (
            {"graphs": dict.fromkeys(("score", "recommend", "similar"), "gone.onnx")},
            'a file named in "files", is \'gone',
        ),
        ({"graphs": dict.fromkeys(("score", "recommend", "similar"), 1)}, 'must be a file named in "files", is 1'),
        (
            {"graphs": {question: [] for question in ("score", "recommend", "similar")}},
            'must be a file named in "files", is \\[\\]',
        ),
        ({"titles": "gone.json"}, '"titles" must be a file named in "files"'),
        ({"files": {"weights.bin": 3}}, '"files" -> "weights.bin" must be {"bytes": integer, "sha256": string}'),
        ({"files": {"weights.bin": {"bytes": "3", "sha256": ""}}}, '"files" -> "weights.bin" must be'),
        ({"files": {"weights.bin": {"bytes": 3}}}, '"files" -> "weights.bin" must be'),
        *(
            ({"files": {name: ENTRY}}, "must be a plain file name inside the folder")
            for name in ("../weights.bin", "/etc/passwd", "a/b", "a\\b", "C:weights.bin", "..", ".", "", "a\0b")
        ),
    ],
)
def test_a_value_that_makes_no_sense(bundles, copy, change, match):
    edit(bundles, copy, lambda raw: raw.update(change))
    refused(copy, match, verify=False)


# Graphs and titles ----------------------------------------------------------------------------------------------------


def test_a_graph_that_is_no_graph(bundles, copy):
    (copy / "score.onnx").write_bytes(b"no graph")
    (copy / "recommend.onnx").write_bytes(b"")
    bundles.reseal(copy)
    refused(copy, "score.onnx: must be an ONNX model within the limits of BUNDLE.md, .*; copy or export the bundle")


def test_a_lazy_graph_that_is_no_graph(bundles, copy):
    (copy / "similar.onnx").write_bytes(b"no graph")
    bundles.reseal(copy)
    scorer = Scorer.load(copy)
    assert scorer.recommend(10)
    for _ in range(2):
        with pytest.raises(BundleError, match=r"similar.onnx: must be an ONNX model"):
            scorer.similar_items(0)


def test_graphs_in_each_others_place(bundles, copy):
    edit(bundles, copy, lambda raw: raw["graphs"].update(score="similar.onnx"))
    refused(copy, r"similar.onnx: inputs must be {'user': 'tensor\(int64\)', 'item': .*}, are {.*'k'.*}")


def test_graphs_for_other_ids(bundles, copy):
    edit(bundles, copy, lambda raw: raw["ids"].update(user="string"))
    refused(copy, r"score.onnx: inputs must be {'user': 'tensor\(string\)'.* are {'user': 'tensor\(int64\)'")


def test_other_outputs(bundles, copy):
    edit(bundles, copy, lambda raw: raw["graphs"].update(recommend="other.onnx"))
    data = (copy / "recommend.onnx").read_bytes()
    (copy / "other.onnx").write_bytes(data.replace(b"known", b"knows"))
    bundles.reseal(copy)
    scorer = Scorer.load(copy)
    with pytest.raises(BundleError, match=r"other.onnx: outputs must be .*'known'.*, are .*'knows'"):
        scorer.recommend(10)


def test_a_graph_that_fails_when_it_runs(bundles, copy, tables):
    path = copy / "score.onnx"
    import onnx

    model = onnx.load(path, load_external_data=False)
    encoder = next(node for node in model.graph.node if node.op_type == "LabelEncoder")
    values = next(attribute for attribute in encoder.attribute if attribute.name == "values_tensor")
    values.t.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(values.t) + 1000))
    path.write_bytes(model.SerializeToString())
    bundles.reseal(copy)
    with pytest.raises(BundleError, match=r"score.onnx: the graph failed: .*; export the bundle again"):
        Scorer.load(copy).score(10, 0)


@pytest.mark.parametrize("text", ["[]", '{"1": 2}', "{", '{"1": null}', ""])
def test_titles_that_are_none(bundles, copy, text):
    (copy / "titles.json").write_text(text)
    bundles.reseal(copy)
    scorer = Scorer.load(copy)
    with pytest.raises(BundleError, match=r"titles.json: must be"):
        scorer.title(0)
    assert scorer.recommend(10)


def test_a_bundle_that_left_its_place_for_one_that_never_came_is_found(copy):
    left = copy.with_name(".bundle-0123456789abcdef.old")
    copy.rename(left)
    assert Manifest.read(copy).folder == left
    left.rename(copy.with_name(".bundle-old"))
    with pytest.raises(BundleError, match="does not exist"):
        Manifest.read(copy)
