"""Reading and writing a manifest, and verifying the files that it lists."""

import json
import os

import pytest

from cflightning_serve import BundleError, Manifest, Scorer
from cflightning_serve.bundle.manifest import Comparison, describe_file, write_manifest

EVERY_FILE = ["manifest.json", "score.onnx", "recommend.onnx", "similar.onnx", "weights.bin", "titles.json"]


def refused(folder, match, **options):
    with pytest.raises(BundleError, match=match) as caught:
        Scorer.load(folder, **options)
    assert isinstance(caught.value, ValueError)
    return str(caught.value)


def test_a_manifest_is_parsed(bundle, tables):
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


def test_the_comparison_of_ranking_models_is_optional(bundles, bundle, tables, tmp_path):
    assert Manifest.read(bundle).comparison == Comparison()
    validation, test = {"ease (dim 8)": 0.25, "ials (dim 8)": 0.2}, {"popularity": {"ndcg@10": 0.125}}
    for name, comparison, expected in (
        ("all", {"validation": validation, "chosen": "ease (dim 8)", "test": test},
         Comparison(validation, "ease (dim 8)", test)),
        ("test", {"test": test, "note": 1}, Comparison(test=test)),
        ("null", None, Comparison()),
    ):  # fmt: skip
        folder = bundles.write_bundle(tmp_path / name, bundles.replace(tables, comparison=comparison))
        assert Manifest.read(folder).comparison == expected
        assert Scorer.load(folder).recommend(10)


def test_a_missing_folder_is_refused(tmp_path):
    refused(tmp_path / "absent", "absent: must be the folder of a bundle, does not exist")


def test_a_file_instead_of_a_folder_is_refused(copy):
    refused(copy / "weights.bin", "weights.bin: must be the folder of a bundle, is a file")


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("name", EVERY_FILE)
def test_a_missing_file_is_refused(copy, name, verify):
    (copy / name).unlink()
    refused(copy, f"{name}: must be a file of the bundle, is missing; copy or export", verify=verify)


@pytest.mark.parametrize("name", EVERY_FILE)
def test_a_folder_instead_of_a_file_is_refused(copy, name):
    (copy / name).unlink()
    (copy / name).mkdir()
    refused(copy, f"{name}: must be a file of the bundle, is not a regular file")


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("name", EVERY_FILE[1:])
def test_a_truncated_file_is_refused(copy, name, verify):
    path = copy / name
    size = path.stat().st_size
    os.truncate(path, size - 1)
    refused(copy, f"{name}: must have {size:,} bytes, has {size - 1:,}: truncated or replaced", verify=verify)


@pytest.mark.parametrize("where", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("name", EVERY_FILE[1:])
def test_a_flipped_bit_in_a_file_is_refused(copy, name, where):
    path = copy / name
    data = bytearray(path.read_bytes())
    data[int(where * len(data))] ^= 1
    path.write_bytes(data)
    refused(copy, f"{name}: its sha256 differs from the manifest's: damaged or edited")


def test_a_flipped_bit_anywhere_in_the_manifest_is_refused(copy):
    path = copy / "manifest.json"
    intact = path.read_bytes()
    accepted = []
    for at in range(len(intact)):
        data = bytearray(intact)
        data[at] ^= 1
        path.write_bytes(data)
        try:
            Manifest.read(copy)
        except BundleError as error:
            assert str(error).startswith(str(copy))  # noqa: PT017  # in a loop
        else:
            accepted.append(chr(intact[at]))
    assert set(accepted) <= set(" \n")  # white space between tokens has no effect


def test_symbolic_links_are_refused(copy, tmp_path):
    for name in EVERY_FILE:
        (copy / name).rename(tmp_path / name)
        (copy / name).symlink_to(tmp_path / name)
        refused(copy, f"{name}: must be a regular file inside the bundle, is a symbolic link")
        (copy / name).unlink()
        (tmp_path / name).rename(copy / name)
    Scorer.load(copy)


def test_files_without_permission_are_refused(bundle, monkeypatch):
    def deny(path, *_):
        raise PermissionError(13, "Permission denied", path)

    manifest = Manifest.read(bundle)
    monkeypatch.setattr(os, "open", deny)
    with pytest.raises(BundleError, match=r"\.(onnx|bin|json): cannot be read: Permission denied; check its name and"):
        manifest.verify()
    refused(bundle, "manifest.json: cannot be read: Permission denied")


def test_an_impossible_name_is_refused():
    refused("x" * 5000, "cannot be read: File name too long")


def test_an_unverified_load_skips_only_the_digests(copy):
    data = bytearray((copy / "weights.bin").read_bytes())
    data[-1] ^= 1
    (copy / "weights.bin").write_bytes(data)
    refused(copy, "sha256")
    assert Scorer.load(copy, verify=False).recommend(10)


def test_files_that_the_manifest_does_not_list_are_ignored(copy):
    (copy / "notes.txt").write_text("mine")
    assert Scorer.load(copy).score(10, 0)


def test_key_order_and_white_space_have_no_effect(copy):
    path = copy / "manifest.json"
    raw = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(raw.items())), indent=7))
    Scorer.load(copy)


def test_a_written_manifest_is_read_again(copy):
    manifest = json.loads((copy / "manifest.json").read_text("utf-8"))
    files = {name: describe_file(copy / name) for name in manifest["files"]}
    assert files == manifest["files"]
    content = {key: value for key, value in manifest.items() if key != "sha256"}
    write_manifest(copy, content | {"model": "Änderung"})
    written = Manifest.read(copy)
    assert written.model == "Änderung"
    assert written.sha256 != manifest["sha256"]
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_manifest(copy, content | {"metrics": {"test/rmse": float("nan")}})
