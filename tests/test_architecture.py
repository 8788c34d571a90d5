"""The subpackages of the three packages and what each may import, read from the syntax trees."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter

import pytest

TRAINING = {  # subpackage -> subpackages that it may import, lowest first; `errors` is open to all
    "utils": set(),
    "models": {"utils"},
    "kernels": {"models", "utils"},
    "sampling": {"models", "utils"},
    "solvers": {"kernels", "utils"},
    "metrics": {"utils"},
    "data": {"utils"},
    "checkpoint": {"data", "utils"},
    "objectives": {"data", "kernels", "models", "solvers", "utils"},
    "engines": {"data", "kernels", "models", "objectives", "sampling", "utils"},
    "evaluation": {"data", "metrics", "models", "solvers", "utils"},
    "tasks": {
        "checkpoint", "data", "engines", "evaluation", "kernels", "metrics", "models", "objectives", "sampling",
        "solvers", "utils",
    },
    "testing": {"data", "models", "tasks"},
    "cli": {"checkpoint", "data", "engines", "evaluation", "metrics", "objectives", "tasks", "utils"},
    "__main__": {"cli"},
}  # fmt: skip
EXPORT = {  # every subpackage may also import `cflightning`, and `bundle` of cflightning_serve
    "publish": set(),
    "onnx_tools": {"publish"},
    "contents": {"onnx_tools"},
    "fold_in": {"contents", "onnx_tools"},
    "graphs": {"contents", "fold_in", "onnx_tools"},
    "bundle": {"contents", "fold_in", "graphs", "onnx_tools", "publish"},
    "layouts": {"bundle", "onnx_tools", "publish"},
    "cli": {"bundle", "layouts"},
}
SERVING = {
    "bundle": set(),
    "inference": {"bundle"},
    "scorer": {"bundle", "inference"},
    "mlflow_model": {"scorer"},
    "batch": {"bundle", "inference", "scorer"},
    "http/errors": set(),
    "http/log_format": set(),
    "http/api_keys": set(),
    "http/json_encoding": {"http/errors", "inference"},
    "http/settings": {"bundle", "http/api_keys"},
    "http/serving": {"bundle", "http/errors", "http/json_encoding", "http/settings", "inference", "scorer"},
    "http/connection": {"http/settings"},
    "http/middleware": {"http/api_keys", "http/connection", "http/errors", "http/serving"},
    "http/routes": {
        "bundle", "http/errors", "http/json_encoding", "http/serving", "http/settings", "inference", "scorer",
    },
    "http/ui": {
        "bundle", "http/errors", "http/json_encoding", "http/routes", "http/serving", "http/settings", "scorer",
    },
    "http/openapi": {"bundle", "http/json_encoding", "http/routes", "http/serving", "http/settings"},
    "http/app": {
        "http/errors", "http/middleware", "http/openapi", "http/routes", "http/serving", "http/ui",
    },
    "http/server": {"http/app", "http/connection", "http/serving", "http/settings"},
    "http/cli": {"bundle", "http/api_keys", "http/log_format", "http/server", "http/settings"},
    "cli": {"batch", "bundle", "http/cli", "inference", "scorer"},
    "__main__": {"cli"},
}  # fmt: skip
ROOMS = {
    "cflightning": ("cflightning", TRAINING),
    "cflightning_export": ("export/cflightning_export", EXPORT),
    "cflightning_serve": ("serve/cflightning_serve", SERVING),
}
TORCH_ONLY = {"models"}
"""Rooms that import torch alone of third parties."""
HTTP = {
    "fastapi", "httptools", "prometheus_client", "pydantic", "pydantic_core", "starlette", "typing_extensions",
    "uvicorn",
}  # fmt: skip
EXTRAS = {"batch/files.py": {"pyarrow"}, "batch/progress.py": {"tqdm"}, "bundle/trust.py": {"cryptography"}}
"""Files of cflightning_serve -> packages of its extras that they import when these are installed."""


def imports(path):
    """Yield the name of every module that a file imports, inside functions and `if TYPE_CHECKING` as well."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def subpackage_of(parts, rooms):
    """Return the subpackage of a module, by the longest name that the table has."""
    return next((room for room in ("/".join(parts[:2]), parts[0] if parts else "") if room in rooms), None)


@pytest.mark.parametrize(("package", "room"), [(name, room) for name, (_, rooms) in ROOMS.items() for room in rooms])
def test_a_subpackage_imports_only_those_below_it(repository, package, room):
    folder, rooms = ROOMS[package]
    place = repository / folder / room
    files = list(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    assert files
    for path in files:
        for name in imports(path):
            top, *parts = name.split(".")
            if top == package and parts and (other := subpackage_of(parts, rooms)) not in (None, room):
                assert other in rooms[room], f"{path} imports {name}"
            elif room in TORCH_ONLY and top != package:
                assert top in {*sys.stdlib_module_names, "torch"}, f"{path} imports {name}"


@pytest.mark.parametrize("package", ROOMS)
def test_every_file_is_in_a_room(repository, package):
    folder, rooms = ROOMS[package]
    for path in (repository / folder).rglob("*.py"):
        parts = path.relative_to(repository / folder).with_suffix("").parts
        assert subpackage_of(parts, rooms) or parts[-1] in ("__init__", "errors"), (
            f"{path} is in no subpackage of the table"
        )


@pytest.mark.parametrize("package", ROOMS)
def test_rooms_form_no_circle(package):
    placed = set()
    for room, below in ROOMS[package][1].items():
        assert below <= placed, (room, below - placed)
        placed.add(room)


@pytest.mark.parametrize("package", ROOMS)
def test_modules_form_no_circle(repository, package):
    top = (repository / ROOMS[package][0]).parent
    names = {}
    for path in (repository / ROOMS[package][0]).rglob("*.py"):
        parts = path.relative_to(top).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    graph = {}
    for name, path in names.items():
        found = {other if other in names else other.rpartition(".")[0] for other in imports(path)}
        graph[name] = found & names.keys() - {name}
    if package == "cflightning":
        graph["cflightning"] = set()  # its names are imported when they are used
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_a_file_holds_one_idea(repository):
    paths = [path for folder, _ in ROOMS.values() for path in (repository / folder).rglob("*.py")]
    lengths = {str(path.relative_to(repository)): len(path.read_text().splitlines()) for path in paths}
    assert not {name: length for name, length in lengths.items() if length > 300}


def test_training_and_serving_do_not_know_each_other(repository):
    serving = repository / "serve" / "cflightning_serve"
    for path in serving.rglob("*.py"):
        place = path.relative_to(serving)
        allowed = {*sys.stdlib_module_names, "numpy", "onnxruntime", "cflightning_serve"}
        extras = HTTP if place.parts[0] == "http" else EXTRAS.get(place.as_posix(), set())
        for name in imports(path):
            assert name.split(".")[0] in allowed | extras, f"{path}: {name}"
    for path in (repository / "cflightning").rglob("*.py"):
        assert not any(name.split(".")[0] == "cflightning_serve" for name in imports(path)), path


def test_export_knows_the_format_of_serving_alone(repository):
    for path in (repository / "export").rglob("*.py"):
        for name in imports(path):
            if name.split(".")[0] == "cflightning_serve":
                assert name.startswith(("cflightning_serve.bundle.", "cflightning_serve.errors.")), f"{path}: {name}"


def test_project_folders_are_no_packages(repository):
    assert not (repository / "export" / "__init__.py").exists()
    assert not (repository / "serve" / "__init__.py").exists()


def test_serving_loads_no_torch(bundle):
    code = (
        f"import sys; from cflightning_serve import Scorer; Scorer.load({str(bundle)!r}).recommend(1, k=2);"
        "sys.exit(bool({'torch', 'lightning', 'pandas', 'onnx', 'cflightning'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_importing_the_package_is_light():
    code = "import sys, cflightning; sys.exit(bool({'torch', 'lightning', 'pandas', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_public_names_exist():
    import cflightning

    for name in cflightning.__all__:
        assert getattr(cflightning, name) is not None
    with pytest.raises(AttributeError):
        _ = cflightning.nothing


@pytest.mark.slow
def test_a_fit_of_a_file_imports_no_pandas(movielens, tmp_path):
    code = (
        "import sys; from cflightning.__main__ import main;"
        f"main(['fit', '--data.path', {str(movielens('ml-1m'))!r}, '--trainer.enable_progress_bar', 'false',"
        f"'--trainer.default_root_dir', {str(tmp_path)!r}, '--trainer.max_epochs', '1']);"
        "sys.exit('pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
