"""SVD++ priors in training by every engine: they are learned, resumed and dropped when training ends."""

import pytest
import torch

pytest.importorskip("numba", reason="the fused engine needs the extra `fast`")

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from cflightning import EmbeddingDotTask, EmbeddingMLPTask, RatingsDataModule
from cflightning.data.splits.options import SplitOptions
from cflightning.errors import ConfigError
from cflightning.kernels.svdpp import CompiledSvdppTerm
from cflightning.models.svdpp import SvdppTerm

SMALL = {"num_users": 300, "num_items": 200, "num_ratings": 6000}


def trainer(epochs=3, **options):
    return Trainer(**{
        "max_epochs": epochs, "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
        "enable_model_summary": False, "accelerator": "cpu", **options,
    })  # fmt: skip


def data(**options):
    return RatingsDataModule(source="synthetic", synthetic=SMALL, split=SplitOptions(val_fraction=0.05), **options)


@pytest.mark.parametrize("engine", ["fused", "autograd"])
@pytest.mark.parametrize("svdpp", ["user", "both"])
def test_terms_are_learned_and_dropped_when_training_ends(engine, svdpp, monkeypatch):
    seen = {}

    def step(self, *given, original=SvdppTerm.step if engine == "autograd" else CompiledSvdppTerm.step):
        original(self, *given)
        seen[id(self)] = float(self.vectors.abs().max())

    monkeypatch.setattr(SvdppTerm if engine == "autograd" else CompiledSvdppTerm, "step", step)
    task = EmbeddingDotTask(dim=4, svdpp=svdpp, engine=engine)
    trainer().fit(task, data())
    assert len(seen) == {"user": 2, "both": 4}[svdpp]
    assert min(seen.values()) > 0
    assert not task.ensemble.priors
    tables = task.network.tables()
    assert tables.user_vectors.shape == (task.network.num_users, 4)
    assert not any(table[0].any() for table in tables[:4])


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual optimization")
@pytest.mark.parametrize("engine", ["fused", "autograd"])
def test_a_resumed_run_restores_the_terms(tmp_path, engine):
    def run(**options):
        saver = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, every_n_train_steps=11)
        task = EmbeddingDotTask(dim=4, engine=engine)
        trainer(callbacks=[saver], enable_checkpointing=True).fit(task, data(), **options)
        return torch.cat([p.detach().reshape(-1) for p in task.network.parameters()])

    whole = run()
    assert torch.equal(run(ckpt_path=tmp_path / "step=11.ckpt", weights_only=True), whole)
    assert "cflightning_svdpp" in torch.load(tmp_path / "step=11.ckpt", weights_only=True)


def test_a_run_without_terms_can_be_resumed_with_them(tmp_path):
    first = trainer(1)
    first.fit(EmbeddingDotTask(dim=4, svdpp="none"), data())
    first.save_checkpoint(tmp_path / "plain.ckpt")
    tables = []
    for svdpp in ("none", "both"):
        task, second = EmbeddingDotTask(dim=4, svdpp=svdpp), trainer(2)
        second.fit(task, data(), ckpt_path=tmp_path / "plain.ckpt", weights_only=True)
        assert second.current_epoch == 2
        tables.append(task.network.user_factors.weight.detach())
    assert not torch.equal(*tables)


def test_networks_without_svdpp_terms_refuse_them():
    task = EmbeddingMLPTask(dim=4)
    task.svdpp = "both"
    with pytest.raises(ConfigError, match="--model.svdpp: must be none for EmbeddingMLP"):
        trainer().fit(task, data())
