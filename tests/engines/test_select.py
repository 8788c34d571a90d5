"""Selection of the engine, and the reasons against the compiled ones."""

import logging
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest
import torch

pytest.importorskip("numba", reason="the fused engine needs the extra `fast`")

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import SingleDeviceStrategy

from cflightning import EmbeddingDotTask, EmbeddingMLPTask, RatingsDataModule
from cflightning.data.splits.options import SplitOptions
from cflightning.engines.select import unsupported_reason
from cflightning.kernels import availability
from cflightning.models.embedding_dot import EmbeddingDot


def data(**options):
    synthetic = {"num_users": 300, "num_items": 200, "num_ratings": 6000}
    return RatingsDataModule(source="synthetic", synthetic=synthetic, split=SplitOptions(val_fraction=0.05), **options)


def trainer(epochs=1, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return Trainer(**{"max_epochs": epochs, "enable_checkpointing": False, **quiet, **options})


@pytest.mark.parametrize(
    ("make", "options", "reason"),
    [
        (
            lambda: EmbeddingMLPTask(dim=4, hidden=(4,), engine="fused"),
            {},
            "it supports EmbeddingDot, not EmbeddingMLP",
        ),
        (lambda: EmbeddingDotTask(dim=4, engine="fused", sigmoid=False), {}, "--model.sigmoid must be true"),
        (lambda: EmbeddingDotTask(dim=4, engine="fused", weight_decay=0.1), {}, "--model.weight_decay need autograd"),
        (
            lambda: EmbeddingDotTask(dim=4, engine="fused"),
            {"precision": "64-true"},
            "--trainer.precision must be 32-true",
        ),
        (
            lambda: EmbeddingDotTask(dim=4, engine="fused"),
            {"gradient_clip_val": 1.0},
            "gradient_clip_val need autograd",
        ),
    ],
)
def test_the_fallback_to_autograd_is_logged_once(make, options, reason, caplog):
    task = make()
    trainer(1, **options).fit(task, data())
    assert task.automatic_optimization
    lines = [r.message for r in caplog.records if "the fused engine cannot be used" in r.message]
    assert len(lines) == 1
    assert reason in lines[0]


@pytest.mark.parametrize(
    ("options", "given"), [({"max_steps": 20}, None), ({"limit_train_batches": 3}, None), ({}, 256)]
)
def test_auto_trains_by_autograd_if_settings_count_batches(options, given, caplog):
    for engine, fused in (("auto", False), ("fused", True)):
        task, fit = EmbeddingDotTask(dim=4, engine=engine), trainer(1, **options)
        fit.fit(task, data(batch_size=given))
        assert task.automatic_optimization is not fused
    assert "fused has eight batches an epoch" in caplog.text


def test_without_numba(monkeypatch, caplog, request):
    monkeypatch.setitem(sys.modules, "numba", None)  # as if it were not installed
    availability.unavailable_reason.cache_clear()
    request.addfinalizer(availability.unavailable_reason.cache_clear)
    for engine, levels in (("fused", [logging.WARNING]), ("auto", [logging.INFO])):
        caplog.clear()
        task = EmbeddingDotTask(dim=4, engine=engine)
        trainer(1).fit(task, data())
        assert task.automatic_optimization
        assert [r.levelno for r in caplog.records if "it needs numba" in r.message] == levels


def test_reasons_against_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    installed = ModuleType("triton")
    installed.__spec__ = ModuleSpec("triton", None)
    monkeypatch.setitem(sys.modules, "triton", installed)

    def why(engine="fused", device="cuda", world_size=1):
        """A Trainer cannot be made for a missing device, so this has the attributes that are read."""
        strategy = SingleDeviceStrategy(torch.device(device))
        trainer = SimpleNamespace(strategy=strategy, world_size=world_size, precision="32-true", max_steps=-1,
                                  limit_train_batches=1.0, accumulate_grad_batches=1, gradient_clip_val=None,
                                  fast_dev_run=False)  # fmt: skip
        return unsupported_reason(engine, trainer, EmbeddingDot(60, 90, 4, (1.0, 5.0), 3.2, margin=0.125))

    assert why() is None
    assert "--model.engine fused" in why("auto")
    assert "one process" in why(world_size=2)
    assert "CUDA" in why(device="mps")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert "compute capability 8.0" in why()
    monkeypatch.setitem(sys.modules, "triton", None)
    assert "cflightning[gpu]" in why()
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert "order of its sums" in why()
    monkeypatch.setattr(torch.version, "hip", "6.0")
    assert "CUDA" in why()
