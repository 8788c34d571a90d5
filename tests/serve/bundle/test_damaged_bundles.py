"""Hundreds of randomly damaged bundles: each is refused or gives results, with little time and memory."""

import json
import resource
import shutil
import time
from contextlib import suppress

import numpy as np
import pytest

from cflightning_serve import BundleError, InputError, Scorer

GRAPHS = ("score.onnx", "recommend.onnx", "similar.onnx")


@pytest.fixture
def intact(bundle):
    return {path.name: path.read_bytes() for path in bundle.iterdir()}


def write(folder, files):
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def run_graphs(scorer):
    return scorer.recommend(10, 5).items.tolist(), scorer.similar_items(0, 3).items.tolist(), scorer.title(0)


def refused(folder, **options):
    """Return whether a bundle is refused; any other exception is a bug of the reader."""
    began = time.monotonic()
    try:
        run_graphs(Scorer.load(folder, eager=True, **options))
        return False
    except BundleError:
        return True
    finally:
        assert time.monotonic() - began < 20
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 8 << 20  # KiB


def damage(rng, data):
    """Truncate, change, extend or clear a file."""
    at = int(rng.integers(len(data)))
    kind = rng.integers(4)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + bytes([data[at] ^ (1 << int(rng.integers(8)))]) + data[at + 1 :]
    if kind == 2:
        return data[:at] + bytes(rng.integers(0, 256, 20, np.uint8)) + data[at:]
    return bytes(len(data))


def test_every_kind_of_damage_is_detected(intact, tmp_path):
    rng = np.random.default_rng(0)
    for n in range(150):
        name = sorted(intact)[n % len(intact)]
        folder = write(tmp_path / str(n), intact | {name: damage(rng, intact[name])})
        assert refused(folder), name
        shutil.rmtree(folder)


def test_swapped_files_are_refused(intact, tmp_path):
    names = sorted(intact)
    for n, one in enumerate(names):
        for other in names[:n]:
            folder = write(tmp_path / f"{one}-{other}", intact | {one: intact[other], other: intact[one]})
            assert refused(folder)
            assert refused(folder, verify=False)  # by their lengths


def test_damaged_graphs_with_valid_digests_are_refused_or_run(bundles, intact, bundle, tmp_path):
    rng = np.random.default_rng(1)
    manifest = json.loads(intact["manifest.json"])
    for n in range(60):
        name = GRAPHS[n % 3]
        folder = write(tmp_path / str(n), intact | {name: damage(rng, intact[name])})
        bundles.write_manifest(folder, {key: manifest[key] for key in manifest if key not in ("files", "sha256")})
        with suppress(InputError):  # from other known ids
            refused(folder)
        shutil.rmtree(folder)


def mutate(manifest, rng):
    """Replace one value of a manifest, at any level, by an unusual one."""
    copied = json.loads(json.dumps(manifest))
    node, key = copied, None
    while True:
        key = list(node)[int(rng.integers(len(node)))] if isinstance(node, dict) else int(rng.integers(len(node)))
        if not isinstance(node[key], (dict, list)) or not node[key] or rng.random() < 0.3:
            break
        node = node[key]
    numbers = [-1, 0, 2**31, 2**63, 10**30, 1e308]
    strings = ["", "x" * 10_000, "../../etc/passwd", "/etc/passwd", "\x00", ".", "score.onnx", "int64"]
    values = [None, True, *numbers, *strings, [], {}, [[]] * 100]
    node[key] = values[int(rng.integers(len(values)))]
    return copied


def test_manifests_with_unusual_values_are_refused_or_load(bundles, intact, tmp_path):
    rng, manifest = np.random.default_rng(2), json.loads(intact["manifest.json"])
    folder = write(tmp_path / "bundle", intact)
    for _ in range(300):
        bundles.seal(folder, mutate(manifest, rng))
        with suppress(InputError):  # from the other id type
            refused(folder)


@pytest.mark.parametrize("name", ["../weights.bin", "/etc/passwd", "a/b", "..", "C:\\x", "a\x00b", "link"])
def test_files_outside_the_folder_are_refused(bundles, intact, tmp_path, name):
    folder = write(tmp_path / "bundle", intact)
    (tmp_path / "weights.bin").write_bytes(intact["weights.bin"])
    (folder / "link").symlink_to(tmp_path / "weights.bin")
    manifest = json.loads(intact["manifest.json"])
    manifest["files"][name] = manifest["files"].pop("weights.bin")
    bundles.seal(folder, manifest)
    assert refused(folder)


def test_external_data_outside_the_folder_is_refused(bundles, intact, tmp_path):
    (tmp_path / "secretsss").write_bytes(intact["weights.bin"])
    for location in (b"../secret", b"/tmp/file"):
        files = intact | {name: intact[name].replace(b"weights.bin", location.ljust(11, b"s")) for name in GRAPHS}
        folder = write(tmp_path / location.decode().strip("./").replace("/", "-"), files)
        manifest = json.loads(intact["manifest.json"])
        bundles.write_manifest(folder, {key: manifest[key] for key in manifest if key not in ("files", "sha256")})
        assert refused(folder)


@pytest.mark.parametrize("counts", [{"num_items": 2**62}, {"num_users": 2**62}, {"dim": 2**62}, {"num_items": 1}])
def test_wrong_counts_cost_no_time_or_memory(bundles, intact, tmp_path, counts):
    folder = write(tmp_path / "bundle", intact)
    bundles.seal(folder, json.loads(intact["manifest.json"]) | counts)
    refused(folder)


def test_a_huge_manifest_is_refused(intact, tmp_path):
    folder = write(tmp_path / "bundle", intact)
    with (folder / "manifest.json").open("r+b") as file:
        file.truncate(1 << 40)  # a sparse file of a terabyte
    assert refused(folder)
