"""A layout is made from an intact bundle, is complete or not there, and replaces nothing but exports."""

import json
import shutil
from pathlib import Path

import pytest

from cflightning.__main__ import main as front_door
from cflightning.errors import ExportError
from cflightning_export.layouts import registry
from cflightning_export.layouts.registry import LAYOUTS, Layout, export_layout, write_layout
from cflightning_export.publish import check_target


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_bundle_stays_and_the_layout_holds_its_manifest(copy, tmp_path, layout):
    before = contents(copy)
    folder = write_layout(copy, tmp_path / "out", layout)
    assert folder == tmp_path / "out"
    assert contents(copy) == before
    assert json.loads((folder / "layout.json").read_text("utf-8")) == {
        "format": "cflightning-layout",
        "layout": layout,
        "bundle": json.loads((copy / "manifest.json").read_text("utf-8")),
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "out"]


def test_a_layout_shares_no_file_with_the_bundle(copy, tmp_path):
    folder = write_layout(copy, tmp_path / "out", "triton")
    linked = {path.stat().st_ino for path in copy.iterdir()}
    assert not linked & {path.stat().st_ino for path in folder.rglob("*")}


def damage_file(folder):
    weights = folder / "weights.bin"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)


def edit_manifest(folder, **changes):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")


def link_file(folder):
    shutil.move(folder / "score.onnx", folder.parent / "score.onnx")
    (folder / "score.onnx").symlink_to(folder.parent / "score.onnx")


DAMAGE = {
    "no folder": (shutil.rmtree, "must be the folder of a bundle"),
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "manifest.json: must be a file of the bundle"),
    "no JSON": (lambda folder: (folder / "manifest.json").write_text("{"), "must be UTF-8 JSON"),
    "a list": (lambda folder: (folder / "manifest.json").write_text("[]"), "must be one JSON object"),
    "another object": (lambda folder: (folder / "manifest.json").write_text("{}"), '"format" must be'),
    "edited": (lambda folder: edit_manifest(folder, dim=99), "damaged or edited"),
    "another format": (lambda folder: edit_manifest(folder, format="x"), '"format" must be'),
    "a flipped bit": (damage_file, "weights.bin: its sha256"),
    "a missing file": (lambda folder: (folder / "similar.onnx").unlink(), "similar.onnx: must be a file"),
    "a link": (link_file, "score.onnx: must be a regular file"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_bundle_is_an_error_and_nothing_is_written(copy, tmp_path, damage):
    harm, says = DAMAGE[damage]
    harm(copy)
    with pytest.raises(ExportError, match=says):
        write_layout(copy, tmp_path / "out", "triton")
    assert not any("out" in path.name for path in tmp_path.iterdir())


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "..", ""])
def test_a_path_out_of_the_bundle_is_an_error(bundles, copy, tmp_path, name):
    (tmp_path / "outside").write_text("")
    manifest = json.loads((copy / "manifest.json").read_text("utf-8"))
    entry = {"bytes": 0, "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}
    bundles.seal(copy, manifest | {"files": manifest["files"] | {name: entry}})
    with pytest.raises(ExportError, match="must be a plain file name inside the folder"):
        write_layout(copy, tmp_path / "out", "mlflow")


@pytest.mark.parametrize(
    ("graph", "says"),
    [
        ({"more": "more.onnx"}, 'must be a file named in "files"'),
        ({"../more": "score.onnx"}, "names of graphs must be identifiers"),
        ({"": "score.onnx"}, "names of graphs must be identifiers"),
    ],
)
def test_graphs_need_a_file_and_a_name(bundles, copy, tmp_path, graph, says):
    manifest = json.loads((copy / "manifest.json").read_text("utf-8"))
    bundles.seal(copy, manifest | {"graphs": manifest["graphs"] | graph})
    with pytest.raises(ExportError, match=says):
        write_layout(copy, tmp_path / "out", "triton")


def test_a_failure_leaves_the_old_layout(copy, tmp_path, monkeypatch):
    write_layout(copy, tmp_path / "out", "triton")
    before = contents(tmp_path / "out")

    def fail(bundle, folder):
        (folder / "half").write_text("")
        raise KeyboardInterrupt

    monkeypatch.setitem(LAYOUTS, "triton", Layout(fail, None))
    with pytest.raises(KeyboardInterrupt):
        write_layout(copy, tmp_path / "out", "triton", overwrite=True)
    assert contents(tmp_path / "out") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "out"]


def test_only_exports_are_replaced(copy, tmp_path):
    folder = write_layout(copy, tmp_path / "out", "triton")
    with pytest.raises(ExportError, match="--overwrite"):
        write_layout(copy, folder, "mlflow")
    write_layout(copy, folder, "mlflow", overwrite=True)
    assert (folder / "MLmodel").is_file()
    assert not (folder / "cflightning_score").exists()

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("mine")
    with pytest.raises(ExportError, match="not a bundle"):
        write_layout(copy, tmp_path / "mine", "triton", overwrite=True)
    assert (tmp_path / "mine" / "notes").read_text() == "mine"


def test_a_bundle_may_replace_a_layout(copy, tmp_path):
    folder = write_layout(copy, tmp_path / "out", "triton")
    with pytest.raises(ExportError, match="--overwrite"):
        check_target(folder, overwrite=False)
    check_target(folder, overwrite=True)


def test_an_existing_target_is_an_error_before_the_work(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ExportError, match="not a bundle"):
        export_layout(tmp_path / "no checkpoint", tmp_path / "file", "triton")


@pytest.mark.slow
def test_the_command(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["export", str(run), "deep/out put", "--layout", "triton"]
    assert front_door(command) == 0
    said = capsys.readouterr().out
    assert "60 users x 40 items" in said
    assert "tritonserver --model-repository 'deep/out put'" in said  # quoted, so that the line can be typed
    assert "curl localhost:8000/" in said
    assert json.loads(Path("deep/out put/layout.json").read_text("utf-8"))["layout"] == "triton"
    assert [path.name for path in Path("deep").iterdir()] == ["out put"]
    assert front_door(command) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_options_of_the_bundle_reach_it(copy, tmp_path, monkeypatch):
    """The bundle itself is removed."""
    seen = []

    def export_bundle(source, target, **options):
        seen.append((source, options))
        return Path(shutil.copytree(copy, target))

    monkeypatch.setattr(registry, "export_bundle", export_bundle)
    export_layout("run", tmp_path / "out", "mlflow", precision="int8")
    assert seen == [("run", {"precision": "int8"})]
    assert (tmp_path / "out" / "MLmodel").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "out"]


def test_an_unknown_layout(tmp_path, capsys):
    with pytest.raises(SystemExit) as done:
        front_door(["export", "run", str(tmp_path / "out"), "--layout", "kserve"])
    assert done.value.code == 2
    assert "kserve" in capsys.readouterr().err
