"""The model folder is self-contained: a machine needs only MLflow, numpy and onnxruntime."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib

import numpy as np
import pytest
import yaml

from cflightning.errors import ExportError
from cflightning_export.layouts import mlflow
from cflightning_export.layouts.registry import write_layout

# What MLflow does with the folder, without MLflow: code and loader as MLmodel names them, in a fresh interpreter.
LOADER = """
import importlib, json, os, sys
folder, flavor, request = sys.argv[1], *map(json.loads, sys.argv[2:4])
sys.path.insert(0, os.path.join(folder, flavor["code"]))
loader = importlib.import_module(flavor["loader_module"])
assert loader.__file__.startswith(folder), loader.__file__
model = loader._load_pyfunc(os.path.join(folder, flavor["data"]))
answer = model.predict(request, params={"k": 4})
assert not {"torch", "pandas", "cflightning", "mlflow", "yaml"} & set(sys.modules)
print(json.dumps(answer if isinstance(answer, list) else answer.tolist()))
"""


@pytest.fixture(scope="module")
def folder(bundle, tmp_path_factory):
    return write_layout(bundle, tmp_path_factory.mktemp("mlflow") / "model", "mlflow")


def document(folder, name="MLmodel"):
    return yaml.safe_load((folder / name).read_text("utf-8"))


def test_it_answers_without_anything_of_ours_installed(tables, folder):
    flavor = document(folder)["flavors"]["python_function"]

    def ask(**columns):
        path = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if "serve" not in entry]
        done = subprocess.run(
            [sys.executable, "-c", LOADER, str(folder), json.dumps(flavor), json.dumps(columns)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path)}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    users, items = tables.user_ids.tolist(), tables.item_ids.tolist()
    assert [row["item"] for row in ask(user=users[:2])] == [tables.recommend(user, 4) for user in users[:2]]
    np.testing.assert_allclose(
        ask(user=users, item=items[: len(users)]), tables.score(users, items[: len(users)]), atol=1e-5
    )


def test_the_folder_holds_no_pickle_and_no_leftovers(folder):
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {"MLmodel", "bundle/manifest.json", "bundle/weights.bin", "code/cflightning_serve/mlflow_model.py"} <= names
    assert not [name for name in names if re.search(r"\.(pkl|pickle|pyc|pt|ckpt)$|__pycache__", name)]


def test_the_bundle_is_whole(bundle, folder):
    assert {path.name: path.read_bytes() for path in (folder / "bundle").iterdir()} == {
        path.name: path.read_bytes() for path in bundle.iterdir()
    }


def test_the_signature_has_the_bundles_ids(tables, folder):
    model = document(folder)
    kind = "string" if tables.user_ids.dtype == object else "long"
    assert json.loads(model["signature"]["inputs"]) == [
        {"name": "user", "type": kind, "required": False},
        {"name": "item", "type": kind, "required": False},
        {"name": "exclude", "type": "array", "items": {"type": kind}, "required": False},
    ]
    [k] = json.loads(model["signature"]["params"])
    assert (k["name"], k["type"], k["default"]) == ("k", "long", 10)
    for file in (model["saved_input_example_info"]["artifact_path"], "serving_input_example.json"):
        [[user]] = next(v for v in json.loads((folder / file).read_text("utf-8")).values() if "data" in v)["data"]
        assert type(user) is (str if kind == "string" else int)


def test_ids_of_two_types(bundles, kinds, tmp_path):
    import dataclasses

    mixed = dataclasses.replace(kinds["ratings"], item_ids=kinds["strings"].item_ids, titles=None)
    folder = write_layout(bundles.write_bundle(tmp_path / "bundle", mixed), tmp_path / "model", "mlflow")
    user, item, exclude = json.loads(document(folder)["signature"]["inputs"])
    assert (user["type"], item["type"], exclude["items"]["type"]) == ("long", "string", "string")


def test_requirements(folder, repository):
    """In all three files, and of numpy and onnxruntime those of the package whose code lies in the folder."""
    asked = (folder / "requirements.txt").read_text("utf-8").split()
    assert document(folder, "conda.yaml")["dependencies"][-1] == {"pip": asked}
    assert document(folder, "python_env.yaml")["dependencies"] == ["-r requirements.txt"]
    package = tomllib.loads((repository / "serve" / "pyproject.toml").read_text("utf-8"))["project"]
    assert asked[1:] == package["dependencies"]
    assert re.fullmatch(r"mlflow>=[\d.]+", asked[0])
    assert not [
        line for line in asked if "cflightning" in line
    ]  # on no index: a foreign package of that name would be installed


def test_without_the_serving_package(copy, tmp_path, monkeypatch):
    monkeypatch.setattr(mlflow, "find_spec", lambda name: None)
    with pytest.raises(ExportError, match="pip install ./serve"):
        write_layout(copy, tmp_path / "model", "mlflow")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("user", [42, 'it\'s "zoë"'])
def test_the_request_that_is_shown(tmp_path, user):
    start, ask = mlflow.next_steps(tmp_path / "a b", {}, user)
    assert str(tmp_path / "a b") in shlex.split(start)
    assert json.loads(shlex.split(ask)[-1]) == {"dataframe_records": [{"user": user}], "params": {"k": 10}}


@pytest.mark.filterwarnings("default")  # MLflow's own imports warn
def test_mlflow_itself_loads_it(tables, folder):
    package = pytest.importorskip("mlflow.pyfunc", reason="MLflow is not installed")
    pandas = pytest.importorskip("pandas")
    model = package.load_model(str(folder))
    users, items = tables.user_ids.tolist(), tables.item_ids.tolist()[: len(tables.user_ids)]
    lists = model.predict(pandas.DataFrame({"user": users}), params={"k": 3})
    assert [row["item"] for row in lists] == [tables.recommend(user, 3) for user in users]
    left_out = model.predict(pandas.DataFrame({"user": users, "exclude": [[item] for item in items]}))
    assert [row["item"] for row in left_out] == [
        tables.recommend(user, 10, [item]) for user, item in zip(users, items, strict=True)
    ]
    scores = model.predict(pandas.DataFrame({"user": users, "item": items}))
    np.testing.assert_allclose(scores, tables.score(users, items), atol=1e-5)
    assert model.metadata.get_input_schema().input_names() == ["user", "item", "exclude"]
    example = model.input_example if hasattr(model, "input_example") else None
    assert example is None or len(model.predict(example)) == 1
