"""The package needs numpy and onnxruntime, nothing else."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import cflightning_serve

SERVE = Path(__file__).parents[2] / "serve"
HTTP = {
    "fastapi",
    "httptools",
    "prometheus_client",
    "pydantic",
    "pydantic_core",
    "starlette",
    "typing_extensions",
    "uvicorn",
}
"""What the extra brings, for its folder alone."""
LIGHT = {"__init__.py", "cli.py", "settings.py"}
"""Files of that folder that the command line imports: they do without."""
ALLOWED = {*sys.stdlib_module_names, "numpy", "onnxruntime", "cflightning_serve"}
EXTRAS = {"cryptography", "pyarrow", "tqdm"}
"""May be imported inside functions, which say what is missing or do without."""
HEAVY = {"torch", "lightning", "pandas", "onnx", "scipy", "sklearn", "pyarrow", "cflightning", "cflightning_export"}


def test_sources_import_nothing_else():
    files = sorted(SERVE.rglob("*.py"))
    assert len(files) > 5
    for file in files:
        extra = HTTP if "http" in file.relative_to(SERVE).parts and file.name not in LIGHT else set()
        tree = ast.parse(file.read_text("utf-8"))
        inside = {node for part in ast.walk(tree) if isinstance(part, ast.FunctionDef) for node in ast.walk(part)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{file}:{node.lineno}: relative import"
                names = [node.module]
            else:
                continue
            foreign = (
                {name.partition(".")[0] for name in names} - (ALLOWED | EXTRAS if node in inside else ALLOWED) - extra
            )
            assert not foreign, f"{file}:{node.lineno}: imports {foreign}"


def modules_after(code, bundle, environment):
    code = f"import sys, json\nBUNDLE = sys.argv[1]\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(bundle)], env=environment, capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout)), done.stderr


def test_a_fresh_interpreter_brings_in_nothing_heavy(bundle, environment):
    code = (
        "from cflightning_serve import Scorer\n"
        "scorer = Scorer.load(BUNDLE)\n"
        "scorer.score(10, 0), scorer.recommend([10, 20], exclude=[[0], []]), scorer.similar_items(0), scorer.title(0)"
    )
    modules, said = modules_after(code, bundle, environment)
    assert not HEAVY & modules
    assert "onnxruntime" in modules
    assert "argparse" not in modules or "argparse" in modules_after("import onnxruntime", bundle, environment)[0]
    assert said == ""


def test_onnxruntime_waits_for_the_first_bundle(bundle, environment):
    modules, _ = modules_after("import cflightning_serve", bundle, environment)
    assert not (HEAVY | {"onnxruntime"}) & modules


def test_the_command_line_waits_for_the_extra(bundle, environment):
    code = (
        "import contextlib, io; from cflightning_serve.cli.main import main\n"
        "with contextlib.redirect_stdout(io.StringIO()): main(['info', BUNDLE])"
    )
    modules, _ = modules_after(code, bundle, environment)
    assert not (HTTP | {"onnxruntime"}) & modules


def test_the_public_names():
    assert set(cflightning_serve.__all__) == {
        name for name in cflightning_serve.__all__ if hasattr(cflightning_serve, name)
    }
    for name in ("BundleError", "InputError", "UnknownIdError"):
        assert issubclass(getattr(cflightning_serve, name), cflightning_serve.ServeError)


def test_there_is_no_package_named_serve():
    assert not (SERVE / "__init__.py").exists()
