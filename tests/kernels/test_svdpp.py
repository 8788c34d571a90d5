"""The compiled bags: held to the plain ones, to any number of threads, and to what training has to keep."""

import numpy as np
import pytest
import torch

pytest.importorskip("numba", reason="the fused engine needs the extra `fast`")

from concurrent.futures import ThreadPoolExecutor

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from cflightning import EmbeddingDotTask, EmbeddingMLPTask, RatingsDataModule
from cflightning.errors import ConfigError
from cflightning.kernels.svdpp import BLOCK_ROWS, CompiledSvdppTerm
from cflightning.models.svdpp import SvdppTerm
from cflightning.utils.csr import csr_from_pairs

SMALL = {"num_users": 300, "num_items": 200, "num_ratings": 6000}


def make(kind, dim, seed=0, users=3 * BLOCK_ROWS + 5, items=BLOCK_ROWS + 1, n=4000):
    rng = np.random.default_rng(seed)
    pair = np.unique(np.stack([rng.integers(1, users - 2, n), rng.integers(1, items, n)], 1), axis=0).astype(np.int32)
    user, item = map(torch.from_numpy, np.ascontiguousarray(pair.T))
    matrices = csr_from_pairs(user, item, users, items), csr_from_pairs(item, user, items, users)
    return kind(*matrices, dim, 0.6, 1.4)


def steps(bag, dim, count=3):
    generator = torch.Generator().manual_seed(1)
    table = torch.randn(len(bag.mean), dim, generator=generator)
    for number in range(count):
        bag.step(table, torch.rand(len(table), generator=generator) / 5 if number else None)
    return torch.cat([table.reshape(-1), bag.mean.reshape(-1), bag.vectors.reshape(-1)])


@pytest.mark.parametrize("dim", [1, 3, 16, 64])
def test_compiled_bag_is_the_plain_one(dim):
    torch.testing.assert_close(
        steps(make(CompiledSvdppTerm, dim), dim), steps(make(SvdppTerm, dim), dim), atol=1e-5, rtol=1e-4
    )


def test_any_number_of_threads_gives_the_same_bits():
    alone = steps(make(CompiledSvdppTerm, 8), 8)
    for helpers in (1, 4):
        bag = make(CompiledSvdppTerm, 8)
        with ThreadPoolExecutor(helpers) as pool:
            bag.use_threads(pool, helpers)
            assert torch.equal(steps(bag, 8), alone)


def trainer(epochs=3, **options):
    return Trainer(**{
        "max_epochs": epochs, "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
        "enable_model_summary": False, "accelerator": "cpu", **options,
    })  # fmt: skip


def data(**options):
    return RatingsDataModule(source="synthetic", synthetic=SMALL, **options)


@pytest.mark.parametrize("engine", ["fused", "autograd"])
@pytest.mark.parametrize("svdpp", ["user", "both"])
def test_bags_are_learnt_and_forgotten_when_training_ends(engine, svdpp, monkeypatch):
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
    tables = task.network.fold()
    assert tables.user_vectors.shape == (task.network.num_users, 4)
    assert not any(table[0].any() for table in tables[:4])


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual optimization")
@pytest.mark.parametrize("engine", ["fused", "autograd"])
def test_a_resumed_run_goes_on_with_the_bags(tmp_path, engine):
    def run(**options):
        saver = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, every_n_train_steps=11)
        task = EmbeddingDotTask(dim=4, engine=engine)
        trainer(callbacks=[saver], enable_checkpointing=True).fit(task, data(), **options)
        return torch.cat([p.detach().reshape(-1) for p in task.network.parameters()])

    whole = run()
    assert torch.equal(run(ckpt_path=tmp_path / "step=11.ckpt", weights_only=True), whole)
    assert "cflightning_svdpp" in torch.load(tmp_path / "step=11.ckpt", weights_only=True)


def test_a_run_without_bags_goes_on_with_them(tmp_path):
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
