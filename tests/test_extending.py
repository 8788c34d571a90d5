"""The examples of docs/extending.md, unchanged, work from outside the packages."""

import importlib
import re
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from lightning.pytorch import Trainer

from cflightning import EmbeddingDotTask, RatingsDataModule
from cflightning.__main__ import COMMANDS, main
from cflightning.data.sources import registry as layouts
from cflightning.data.splits.options import SplitOptions
from cflightning.metrics.ranking import METRICS
from cflightning.objectives import registry as objectives
from cflightning.tasks.loading import load_task
from cflightning_export import export_bundle
from cflightning_export.graphs import registry as graphs
from cflightning_serve import Scorer
from cflightning_serve.bundle.signatures import SIGNATURES
from cflightning_serve.cli import commands
from cflightning_serve.cli.main import main as serve
from cflightning_serve.http import routes
from cflightning_serve.http.routes.common import RequestBody

QUICK = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
         "enable_model_summary": False}  # fmt: skip


@pytest.fixture(scope="module")
def examples(repository):
    """Place -> text of each example; its first line names the file."""
    text = (repository / "docs" / "extending.md").read_text("utf-8")
    return dict(re.findall(r"```python\n# (\S+)\n(.*?)```", text, re.DOTALL))


@pytest.fixture
def example(examples, tmp_path, monkeypatch):
    """Writes an example into a folder of its own and imports it."""
    folder = tmp_path / "outside"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)

    def load(place: str):
        name = f"example_{place.removesuffix('.py').replace('/', '_')}"
        (folder / f"{name}.py").write_text(examples[place])
        importlib.invalidate_caches()
        try:
            return importlib.import_module(name)
        finally:
            sys.modules.pop(name, None)

    return load


def test_every_example_is_tested(examples):
    assert len(examples) == 8
    assert all(f'"{place}"' in Path(__file__).read_text("utf-8") for place in examples)


def small_data():
    return RatingsDataModule(
        source="synthetic",
        synthetic={"num_users": 60, "num_items": 40, "num_ratings": 1200},
        split=SplitOptions("per_user", test_fraction=0.2, val_fraction=0.05),
    )


@pytest.mark.slow
def test_a_network(examples, tmp_path, monkeypatch, capsys):
    (tmp_path / "distance.py").write_text(examples["models/distance.py"])
    monkeypatch.syspath_prepend(tmp_path)
    fit = ["fit", "--model", "distance.DistanceTask", "--model.dim", "3", "--data.source", "synthetic",
           "--data.synthetic", "{num_users: 60, num_items: 40, num_ratings: 1200}", "--trainer.max_epochs", "1",
           "--trainer.accelerator", "cpu", "--trainer.default_root_dir", str(tmp_path)]  # fmt: skip
    assert main(fit) == 0
    assert "test RMSE" in capsys.readouterr().out
    task = load_task(tmp_path / "version_0" / "checkpoints" / "best.ckpt")
    assert (type(task).__name__, task.dim) == ("DistanceTask", 3)
    export_bundle(tmp_path / "version_0", tmp_path / "bundle")
    assert len(Scorer.load(tmp_path / "bundle").recommend(1, k=5).items) == 5


def test_an_objective(example):
    example("objectives/hinge.py")
    try:
        task, data = EmbeddingDotTask(dim=4, objective="hinge", ranking={"margin": 0.5}), small_data()
        trainer = Trainer(max_epochs=2, **QUICK)
        trainer.fit(task, data)
        [metrics] = trainer.test(task, data, verbose=False)
        assert metrics["test/ndcg@10"] > 0
        assert task.search_space(data)
    finally:
        objectives.unregister("hinge")


def test_a_data_source(example, tmp_path):
    likes = example("data/sources/likes.py")
    (tmp_path / "likes.txt").write_text("ann:tea,milk\nbob:tea\n")
    try:
        table = RatingsDataModule(str(tmp_path), feedback="implicit").table
        assert table.user.values.tolist() == ["ann", "ann", "bob"]
        assert table.item.values.tolist() == ["tea", "milk", "tea"]
        (tmp_path / "a.csv").write_text("user,item,rating\n1,2,3\n")
        assert len(RatingsDataModule(str(tmp_path / "a.csv")).table) == 1  # other layouts still apply
    finally:
        layouts.unregister(likes.find_likes)


def test_a_metric(example):
    example("metrics/first.py")
    try:
        task, data = EmbeddingDotTask(dim=4, objective="svd"), small_data()
        trainer = Trainer(max_epochs=1, **QUICK)
        trainer.fit(task, data)
        [metrics] = trainer.test(task, data, verbose=False)
        assert 0 < metrics["test/first@10"] == metrics["test/first@20"] <= metrics["test/hr@10"]
    finally:
        del METRICS["first"]


def test_a_graph(example, run, tmp_path):
    graph = example("graphs/user_bias.py")
    try:
        export_bundle(run, tmp_path / "bundle")
    finally:
        graphs.unregister(graph.GRAPHS)
        del SIGNATURES["user_bias"]
    session = onnxruntime.InferenceSession(tmp_path / "bundle" / "user_bias.onnx")
    bias, known = session.run(None, {"user": np.array([1, 10**9])})
    assert known.tolist() == [True, False]
    assert np.isfinite(bias).all()
    assert len(Scorer.load(tmp_path / "bundle").recommend(1).items) == 10


def test_a_route(examples, tmp_path, monkeypatch):
    (tmp_path / "titles.py").write_text(examples["http/routes/titles.py"])
    monkeypatch.setattr(routes, "__path__", [*routes.__path__, str(tmp_path)])
    found = [module for module in routes.route_modules() if any(r.path == "/titles" for r in module.router.routes)]
    assert len(found) == 1
    assert issubclass(sys.modules.pop(f"{routes.__name__}.titles").Titles, RequestBody)


def test_commands(examples, example, bundle, tmp_path, monkeypatch, capsys):
    (tmp_path / "titles.py").write_text(examples["cli/commands/titles.py"])
    monkeypatch.setattr(commands, "__path__", [*commands.__path__, str(tmp_path)])
    assert serve(["titles", str(bundle), "--item", "1"]) == 0
    assert "Toy Story" in capsys.readouterr().out
    sys.modules.pop(f"{commands.__name__}.titles")
    hello = example("cli/hello.py")
    monkeypatch.setitem(sys.modules, hello.__name__, hello)
    try:
        assert main(["hello", "you"]) == 0
    finally:
        del COMMANDS["hello"]
    assert capsys.readouterr().out == "hello you\n"
