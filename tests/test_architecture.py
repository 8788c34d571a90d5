"""Who may import whom: the design's arrows, read from the syntax trees."""

import ast
import subprocess
import sys

import pytest

LAYERS = {  # folder or file -> what of cflightning it may import, directly
    "errors.py": set(),
    "arguments.py": {"errors"},
    "files.py": {"errors"},
    "locks.py": {"errors"},
    "stopping.py": set(),
    "option_errors.py": set(),
    "callbacks.py": set(),
    "command_help.py": set(),
    "streams.py": set(),
    "failures.py": {"errors", "files"},
    "runs.py": {"errors", "files", "locks"},
    "item_lists.py": {"errors"},
    "processes.py": {"errors"},
    "data": {"data", "arguments", "errors", "files", "item_lists", "locks", "processes", "torch_threads"},
    "torch_threads.py": {"errors"},
    "models": {"models", "errors", "torch_threads"},
    "objectives": {"objectives", "models", "errors"},
    "sampling": {"sampling", "models", "errors", "torch_threads"},
    "metrics": {"metrics", "errors", "item_lists"},
    "solvers": {"solvers", "kernels", "errors", "torch_threads"},
    "kernels": {"kernels", "objectives", "errors"},
    "plots.py": {"metrics", "files"},
    "kfold.py": {"errors"},
    "study.py": {"data", "files"},
    "tuning/options.py": {"errors"},
    "tuning/ranges.py": {"errors"},
    "tuning/asked.py": {"tuning", "errors"},
    "tuning/journal.py": {"locks"},
    "tuning/trials.py": {"tuning"},
    "tuning/report.py": {"tuning", "files", "plots"},
    "evaluation.py": {"data", "metrics", "errors", "files", "plots"},
    "tasks": {
        "tasks",
        "data",
        "models",
        "objectives",
        "metrics",
        "kernels",
        "sampling",
        "solvers",
        "item_lists",
        "errors",
        "checkpoint",
        "checkpoint_rules",
        "arguments",
        "processes",
        "torch_threads",
    },
    "checkpoint_rules.py": {"errors"},
    "blending.py": {"data", "metrics", "models", "checkpoint"},
    "comparison.py": {"data", "tasks", "solvers", "models", "item_lists"},
}
EXTRAS = {"list_files.py": {"pyarrow"}, "progress.py": {"tqdm"}, "trust.py": {"cryptography"}}
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
"""Files of cflightning_serve -> what else they may import, when it is asked for and installed."""
TORCH_ONLY = {"models", "objectives"}  # of third parties


def imports(path):
    """(module, inside a function or `if TYPE_CHECKING`?) of every import of a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module


@pytest.mark.parametrize("layer", LAYERS)
def test_layers(repository, layer):
    top = repository / "cflightning" / layer
    for path in [top] if top.is_file() else top.rglob("*.py"):
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "cflightning" and len(parts) > 1:
                assert parts[1] in LAYERS[layer], f"{path} imports {name}"
            elif layer in TORCH_ONLY:
                assert parts[0] in {*sys.stdlib_module_names, "torch", "__future__"}, f"{path} imports {name}"


def test_only_the_front_door_imports_the_command_line(repository):
    for folder in ("cflightning", "export", "serve"):
        for path in (repository / folder).rglob("*.py"):
            if path.name not in {"__main__.py", "cli.py", "folds.py", "fits.py"}:
                assert "cflightning.cli" not in set(imports(path)), path


def test_training_and_serving_do_not_know_each_other(repository):
    for path in (repository / "serve" / "cflightning_serve").rglob("*.py"):
        for name in imports(path):
            top = name.split(".")[0]
            allowed = {*sys.stdlib_module_names, "numpy", "onnxruntime", "cflightning_serve"}
            extras = HTTP if path.parent.name == "http" else EXTRAS.get(path.name, set())
            assert top in allowed | extras, f"{path}: {name}"
    for folder in ("cflightning", "export"):
        for path in (repository / folder).rglob("*.py"):
            assert not any(name.split(".")[0] == "cflightning_serve" for name in imports(path)), path


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


def test_a_fit_of_a_file_imports_no_pandas(movielens, tmp_path):
    code = (
        "import sys; from cflightning.__main__ import main;"
        f"main(['fit', '--data.path', {str(movielens('ml-1m'))!r}, '--trainer.enable_progress_bar', 'false',"
        f"'--trainer.default_root_dir', {str(tmp_path)!r}, '--trainer.max_epochs', '1']);"
        "sys.exit('pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
