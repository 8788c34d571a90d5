"""The example programs give the results of numpy, for bundles of every kind."""

import ast
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

EXAMPLES = Path(__file__).parents[2] / "serve" / "examples"
JAVASCRIPT = EXAMPLES / "javascript"
KINDS = {
    "bundle": "tables",
    "string_bundle": "string_tables",
    "choice_bundle": "choice_tables",
    "mixed_bundle": "mixed_tables",
}


def command(language):
    if language == "python":
        return [sys.executable, str(EXAMPLES / "python_onnxruntime.py")]
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    if not (JAVASCRIPT / "node_modules" / "onnxruntime-node").is_dir():
        pytest.skip("onnxruntime-node is not installed: make javascript")
    return ["node", str(JAVASCRIPT / "recommend.js")]


@pytest.fixture(params=["python", "javascript"])
def run(request):
    command_line = command(request.param)

    def run(folder, user, k=10, rated=(), code=0):
        pairs = [f"--rated={item}:{rating}" for item, rating in rated]
        if request.param == "python":  # one option with several values instead of a repeated option
            pairs = ["--rated", *(f"{item}:{rating}" for item, rating in rated)]
        process = subprocess.run(
            [*command_line, str(folder), f"--user={user}", f"--k={k}", *pairs],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert process.returncode == code, process.stderr
        if code:
            return process.stderr
        result = json.loads(process.stdout)
        return result if request.param == "python" else with_python_names(result)

    return run


def with_python_names(result):
    names = {"knownUser": "known_user", "newUser": "new_user"}
    return {names.get(name, name): value for name, value in result.items()}


def items_of(rows, tables):
    """Convert ids to the type of the tables: JavaScript prints integers as text, because its numbers have 53 bits."""
    return [type(tables.item_ids.tolist()[0])(row["item"]) for row in rows]


@pytest.fixture(params=KINDS)
def case(request):
    return request.getfixturevalue(request.param), request.getfixturevalue(KINDS[request.param])


def test_a_known_user_gets_recommendations_and_scores(run, case):
    folder, tables = case
    user, left_out = tables.user_ids[1], tables.item_ids[[2, 5]].tolist()
    result = run(folder, user, 100, [(item, 4) for item in left_out])
    assert result["known_user"] is True
    got = items_of(result["items"], tables)
    assert got == tables.recommend(user, 100, left_out)
    scores = [row["score"] for row in result["items"]]
    np.testing.assert_allclose(scores, tables.recommender.score([user] * len(got), got), atol=1e-5)
    assert [row["title"] for row in result["items"]] == [(tables.titles or {}).get(str(item)) for item in got]
    assert items_of(result["predicted"], tables) == left_out
    predicted = [row["score"] for row in result["predicted"]]
    np.testing.assert_allclose(predicted, tables.score([user] * 2, left_out), atol=1e-5)
    assert "new_user" not in result  # the bundle has no fold-in graph


def test_compressed_titles_are_read(run, bundles, tables, tmp_path):
    packed = bundles.pack(bundles.write_bundle(tmp_path / "packed", tables))
    rows = run(packed, tables.user_ids[0], 3)["items"]
    best = tables.recommend(tables.user_ids[0], 3)
    assert [row["title"] for row in rows] == [tables.titles.get(str(item)) for item in best]
    assert any(row["title"] for row in rows)


def test_an_unknown_user_without_ratings(run, string_bundle, string_tables):
    result = run(string_bundle, "nobody", 3)
    assert result["known_user"] is False
    assert items_of(result["items"], string_tables) == string_tables.recommend("nobody", 3)
    assert result["predicted"] == []


def test_large_integers_and_ids_that_are_names_of_javascript_properties(run, bundles, tables, tmp_path):
    wide = replace(tables, user_ids=2**62 + np.arange(len(tables.user_ids)), beside=None)
    folder = bundles.write_bundle(tmp_path / "wide", wide)
    for user in (2**62 + 1, 2**62 + 2):
        assert items_of(run(folder, user, 3)["items"], wide) == wide.recommend(user, 3)
    ids = np.array(
        ["constructor", "__proto__", "toString", *(f"i{n}" for n in range(len(tables.item_ids) - 3))], object
    )
    named = replace(tables, item_ids=ids, titles={"__proto__": "Film"})
    result = run(bundles.write_bundle(tmp_path / "named", named), 10, 100)
    titles = {row["item"]: row["title"] for row in result["items"]}
    assert titles == {**dict.fromkeys(ids), "__proto__": "Film"}


@pytest.mark.parametrize("name", ["bundle", "string_bundle"])
def test_a_new_user_is_folded_in(run, bundles, request, tmp_path, name):
    """A substitute for the graph has the inputs of BUNDLE.md and returns them."""
    folder = Path(shutil.copytree(request.getfixturevalue(name), tmp_path / "bundle"))
    tables = request.getfixturevalue(KINDS[name])
    id_type = TensorProto.STRING if name == "string_bundle" else TensorProto.INT64
    free = {"item": id_type, "rating": TensorProto.FLOAT, "exclude_item": id_type, "score_item": id_type}
    graph = helper.make_graph(
        [
            helper.make_node("Slice", ["item", "zero", "k"], ["best"]),
            helper.make_node("Slice", ["rating", "zero", "k"], ["score"]),
        ],
        "fold_in",
        [
            *(helper.make_tensor_value_info(key, type_, ["n" + key]) for key, type_ in free.items()),
            helper.make_tensor_value_info("k", TensorProto.INT64, [1]),
        ],
        [
            helper.make_tensor_value_info("best", id_type, ["k"]),
            helper.make_tensor_value_info("score", TensorProto.FLOAT, ["k"]),
        ],
        [numpy_helper.from_array(np.array([0]), "zero")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, folder / "fold_in.onnx")
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    bundles.write_manifest(folder, manifest | {"graphs": manifest["graphs"] | {"fold_in": "fold_in.onnx"}})

    rated = list(zip(tables.item_ids.tolist()[3:6], (4.5, 3, 1), strict=True))
    result = run(folder, tables.user_ids[0], 2, rated)
    assert items_of(result["new_user"], tables) == tables.item_ids.tolist()[3:5]
    assert [row["score"] for row in result["new_user"]] == [4.5, 3]


def test_a_newer_format_is_refused(run, bundles, copy):
    manifest = json.loads((copy / "manifest.json").read_text("utf-8"))
    bundles.seal(copy, manifest | {"format_version": 3})
    assert "must be a bundle of format 1 or 2" in run(copy, 10, code=1)


def test_the_python_example_imports_onnxruntime_and_numpy_only():
    tree = ast.parse((EXAMPLES / "python_onnxruntime.py").read_text("utf-8"))
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert {name.partition(".")[0] for name in names} - sys.stdlib_module_names == {"numpy", "onnxruntime"}


def test_the_lock_file_pins_every_package_by_digest_and_names_no_registry():
    lock = json.loads((JAVASCRIPT / "package-lock.json").read_text("utf-8"))
    wanted = json.loads((JAVASCRIPT / "package.json").read_text("utf-8"))["dependencies"]
    assert lock["packages"][""]["dependencies"] == wanted
    for name, package in lock["packages"].items():
        assert not name or (package["integrity"].startswith("sha512-") and "resolved" not in package), name
    assert all(version[0].isdigit() for version in wanted.values())  # an exact version
