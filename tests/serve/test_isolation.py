"""Imports of the package: numpy and onnxruntime only, and each as late as possible."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import cflightning_serve

SERVE = Path(__file__).parents[2] / "serve"
HTTP = {"fastapi", "httptools", "prometheus_client", "pydantic", "starlette", "uvicorn"}
"""Packages of the extra ``http``."""
OPTIONAL = {"cryptography", "pyarrow", "tqdm"}
"""Packages of the other extras."""
HEAVY = {"torch", "lightning", "pandas", "onnx", "scipy", "sklearn", "pyarrow", "cflightning", "cflightning_export"}


def test_optional_packages_are_imported_inside_functions():
    for path in SERVE.rglob("*.py"):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.Import):
                names = {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {node.module.partition(".")[0]}
            else:
                continue
            assert not names & OPTIONAL, f"{path}:{node.lineno}"


def modules_after(code, bundle, environment):
    """Return the modules that are loaded after running code, and its standard error."""
    code = f"import sys, json\nBUNDLE = sys.argv[1]\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    process = subprocess.run(
        [sys.executable, "-c", code, str(bundle)], env=environment, capture_output=True, text=True, check=True
    )
    return set(json.loads(process.stdout)), process.stderr


def test_inference_loads_no_heavy_package(bundle, environment):
    code = (
        "from cflightning_serve import Scorer\n"
        "scorer = Scorer.load(BUNDLE)\n"
        "scorer.score(10, 0), scorer.recommend([10, 20], exclude=[[0], []]), scorer.similar_items(0), scorer.title(0)"
    )
    modules, stderr = modules_after(code, bundle, environment)
    assert not HEAVY & modules
    assert "onnxruntime" in modules
    assert "argparse" not in modules or "argparse" in modules_after("import onnxruntime", bundle, environment)[0]
    assert stderr == ""


def test_onnxruntime_is_imported_with_the_first_bundle(bundle, environment):
    modules, _ = modules_after("import cflightning_serve", bundle, environment)
    assert not (HEAVY | {"onnxruntime"}) & modules


def test_the_command_line_does_not_import_the_server(bundle, environment):
    code = (
        "import contextlib, io; from cflightning_serve.cli.main import main\n"
        "with contextlib.redirect_stdout(io.StringIO()): main(['info', BUNDLE])"
    )
    modules, _ = modules_after(code, bundle, environment)
    assert not (HTTP | {"onnxruntime"}) & modules


def test_public_names_exist_and_errors_have_one_base():
    assert all(hasattr(cflightning_serve, name) for name in cflightning_serve.__all__)
    for name in ("BundleError", "InputError", "UnknownIdError"):
        assert issubclass(getattr(cflightning_serve, name), cflightning_serve.ServeError)
