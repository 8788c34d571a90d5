"""The examples of the pages about serving work."""

import inspect
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from cflightning_serve import Scorer, scorer
from cflightning_serve.cli.main import main

REPOSITORY = Path(__file__).parents[2]
TEXT = "\n".join(
    (REPOSITORY / name).read_text("utf-8").replace('"bundle', '"BUNDLE')
    for name in ("serve/README.md", "docs/serving.md", "docs/deployment.md")
)


@pytest.fixture(scope="module")
def shown(bundles, fold_in_graphs, tmp_path_factory):
    """A bundle with the ids of the pages."""
    tables = bundles.make_tables(titles=True)
    tables.item_ids[:2] = 1193, 661
    tables.user_ids[0] = 42
    tables = bundles.replace(tables, categories={})
    folder = bundles.write_bundle(tmp_path_factory.mktemp("docs") / "BUNDLE", tables)
    fold_in_graphs.add(folder, tables, bundles)
    (folder.parent / "pairs.csv").write_text("user,item\n42,1193\n")
    return tables, folder


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL))
def test_python_examples_return_the_recommendations(shown, code, monkeypatch):
    tables, folder = shown
    monkeypatch.chdir(folder.parent)
    names = {}
    exec(code, names)
    items = names["items"].reshape(-1)[np.isfinite(names["scores"].reshape(-1))]
    assert items.tolist() == tables.recommend(42, 10, [1193, 661])


def test_commands_run(shown, monkeypatch, capsys):
    monkeypatch.chdir(shown[1].parent)
    lines = re.findall(r"^python -m cflightning_serve (.*)$", TEXT, flags=re.MULTILINE)
    assert len(lines) >= 12
    for line in lines:
        if line.startswith("http "):  # never ends; see http/test_command.py
            continue
        assert main(shlex.split(re.sub(r"[\[\]]", "", line))) == 0, line
        assert capsys.readouterr().out


@pytest.mark.parametrize("page", ["serve/README.md", "docs/serving.md"])
def test_methods_exist_with_their_arguments(page):
    text = (REPOSITORY / page).read_text("utf-8")
    table = text.split("| method |")[1].split("\n\n")[0]
    calls = re.findall(r"`(\w+)\(([^`]*)\)`", "\n".join(row.split("|")[1] for row in table.splitlines()[2:]))
    assert len(calls) >= 5
    for name, arguments in calls:
        parameters = inspect.signature(getattr(Scorer, name)).parameters
        assert {argument.split("=")[0].strip() for argument in arguments.split(",")} - {"..."} <= set(parameters), name


def test_result_fields_exist():
    found = re.findall(r"`(TopK|TopKLists|FoldIn|FoldInItem|Explanation)\(([\w, ]+)\)`", TEXT)
    assert len(found) == 5
    for name, fields in found:
        assert tuple(fields.split(", ")) == getattr(scorer, name)._fields, name
