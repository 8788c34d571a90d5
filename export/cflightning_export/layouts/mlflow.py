"""MLflow model folder: the bundle, the code that serves it, and an `MLmodel` file that names both.

```
MODEL/
  MLmodel                  loader_module: cflightning_serve.mlflow_model
  bundle/                  the bundle as it is
  code/cflightning_serve/  the code: cflightning-serve is on no package index
  requirements.txt  python_env.yaml  conda.yaml
  input_example.json  serving_input_example.json
```

A loader module needs no pickle, and MLflow itself is not needed to write the folder.

Source: https://mlflow.org/docs/latest/python_api/mlflow.pyfunc.html, "Filesystem format".
"""

from __future__ import annotations

import json
import platform
import shlex
import shutil
import uuid
from importlib.util import find_spec
from pathlib import Path

import yaml

from cflightning.errors import ExportError
from cflightning_export.layouts.source import Bundle
from cflightning_serve.bundle.strict_json import Json

PACKAGE = "cflightning_serve"
REQUIREMENTS = ("mlflow>=2.10", "numpy>=1.26", "onnxruntime>=1.24")
"""MLflow from where columns may be lists; the others as in serve/pyproject.toml."""


def write(bundle: Bundle, folder: Path) -> None:
    """Write the model folder.

    Args:
        bundle: a finished bundle.
        folder: an empty folder.

    Raises:
        ExportError: cflightning-serve, whose code goes into the folder, is not installed.
    """
    spec = find_spec(PACKAGE)  # found, not imported
    if spec is None or not spec.submodule_search_locations:
        raise ExportError(f"mlflow layout: needs {PACKAGE}, which is not installed; pip install ./serve")
    shutil.copytree(
        spec.submodule_search_locations[0], folder / "code" / PACKAGE, ignore=shutil.ignore_patterns("__pycache__")
    )
    (folder / "bundle").mkdir()
    for name in ("manifest.json", *bundle.manifest["files"]):
        shutil.copyfile(bundle.folder / name, folder / "bundle" / name)
    python = platform.python_version()
    (folder / "requirements.txt").write_text("".join(f"{line}\n" for line in REQUIREMENTS), encoding="utf-8")
    for name, document in (
        ("MLmodel", _model(bundle.manifest, python)),
        ("python_env.yaml", {"python": python, "build_dependencies": ["pip"], "dependencies": ["-r requirements.txt"]}),
        (
            "conda.yaml",
            {
                "name": "mlflow-env",
                "channels": ["conda-forge"],
                "dependencies": [f"python={python}", "pip", {"pip": list(REQUIREMENTS)}],
            },
        ),
    ):
        (folder / name).write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    # An unknown id works as well.
    table = {"columns": ["user"], "data": [[1 if bundle.manifest["ids"]["user"] == "int64" else "1"]]}
    for name, example in (
        ("input_example.json", {"inputs": table, "params": {"k": 10}}),
        ("serving_input_example.json", {"dataframe_split": table, "params": {"k": 10}}),
    ):
        (folder / name).write_text(json.dumps(example, indent=2), encoding="utf-8")


def next_steps(target: Path, manifest: dict[str, Json], user: int | str) -> list[str]:
    """Return the commands that start the server, and request ten recommendations for a user."""
    request = {"dataframe_records": [{"user": user}], "params": {"k": 10}}
    return [
        f"mlflow models serve --model-uri {shlex.quote(str(target))} --env-manager local",
        f"curl localhost:5000/invocations -H 'Content-Type: application/json' -d {shlex.quote(json.dumps(request))}",
    ]


def _model(manifest: dict[str, Json], python: str) -> dict[str, Json]:
    """Return the contents of `MLmodel`."""
    user, item = ({"int64": "long", "string": "string"}[manifest["ids"][side]] for side in ("user", "item"))
    columns = [
        {"name": "user", "type": user, "required": False},
        {"name": "item", "type": item, "required": False},
        {"name": "exclude", "type": "array", "items": {"type": item}, "required": False},
    ]
    return {
        "flavors": {
            "python_function": {
                "loader_module": f"{PACKAGE}.mlflow_model",
                "code": "code",
                "data": "bundle",
                "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
                "python_version": python,
                "streamable": False,
            }
        },
        "metadata": {"cflightning_bundle": manifest["sha256"], "written_by": manifest["written_by"]},
        "model_uuid": uuid.uuid4().hex,
        "saved_input_example_info": {
            "artifact_path": "input_example.json",
            "pandas_orient": "split",
            "params": "true",
            "serving_input_path": "serving_input_example.json",
            "type": "dataframe",
        },
        "signature": {
            "inputs": json.dumps(columns),
            "outputs": None,  # scores or recommendations, depending on the columns
            "params": json.dumps([{"name": "k", "type": "long", "default": 10, "shape": None}]),
        },
        "utc_time_created": manifest["created"],
    }
