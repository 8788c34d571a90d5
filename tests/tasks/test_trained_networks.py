"""Ensembles: averages of members, and of draws from the posterior."""

import itertools

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from cflightning import EmbeddingDotTask, EmbeddingMLPTask, RatingsDataModule
from cflightning.checkpoint.format import read_checkpoint
from cflightning.data.splits.options import SplitOptions
from cflightning.errors import CheckpointError, ConfigError
from cflightning.models.ensemble import average, compress
from cflightning.tasks.loading import load_task
from cflightning.testing import TaskContract

pytest.importorskip("numba", reason="the fused and the sampling engine need the extra `fast`")

SMALL = {"num_users": 60, "num_items": 40, "num_ratings": 1200}
KINDS = {
    "members, fused": {"members": 3, "engine": "fused"},
    "members, autograd": {"members": 3, "engine": "autograd"},
    "one, compressed": {"compress": 2, "engine": "fused"},
    "posterior": {"engine": "gibbs"},
    "posterior, more": {"engine": "gibbs", "members": 2, "compress": 6},
}


@pytest.mark.slow
class TestMembers(TaskContract):
    def make(self):
        return EmbeddingDotTask(dim=4, learning_rate=0.03, members=2)


class TestPosterior(TaskContract):
    def make(self):
        return EmbeddingDotTask(dim=4, engine="gibbs")


def data(**options):
    return RatingsDataModule(
        source="synthetic", synthetic=SMALL, **{"split": SplitOptions(val_fraction=0.05), **options}
    )


def trainer(epochs=2, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return Trainer(**{"max_epochs": epochs, "enable_checkpointing": False, **quiet, **options})


def parameters(task):
    return torch.cat([p.detach().reshape(-1) for p in task.network.parameters()])


def product(tables):
    return tables.user_vectors @ tables.item_vectors.T + tables.user_bias[:, None] + tables.item_bias


@pytest.mark.parametrize("engine", ["fused", "autograd"])
def test_the_served_network_is_the_average_of_networks_trained_alone(engine):
    module = data(split=SplitOptions(val_fraction=0))
    together = EmbeddingDotTask(dim=3, members=3, compress=9, engine=engine)
    trainer(limit_val_batches=0).fit(together, module)
    alone = []
    for number in range(3):
        task = EmbeddingDotTask(dim=3, engine=engine, seed=number * 1_000_003)
        trainer(limit_val_batches=0).fit(task, data(split=SplitOptions(val_fraction=0)))
        alone.append(task.network.tables())
    mean = average(alone, [1, 1, 1])
    torch.testing.assert_close(product(together.network.tables()), product(mean), atol=2e-5, rtol=1e-4)
    assert float(together.network.global_bias.detach()) == pytest.approx(float(mean.global_bias), abs=1e-6)


@pytest.mark.slow
def test_compression_is_the_truncated_svd_of_the_network_trained_alone():
    cut, whole = EmbeddingDotTask(dim=6, compress=2, seed=5), EmbeddingDotTask(dim=6, seed=5)
    for task in (cut, whole):
        trainer().fit(task, data())
    nearest = compress(whole.network.tables(), 2)
    assert cut.network.dim == 2
    torch.testing.assert_close(product(cut.network.tables()), product(nearest), atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual optimization")
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, kind):
    def run(epochs, **options):
        saver = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
        task = EmbeddingDotTask(dim=4, **KINDS[kind])
        fit = trainer(epochs, callbacks=[saver], enable_checkpointing=True)
        fit.fit(task, data(), **options)
        return parameters(task), float(fit.callback_metrics["val/rmse"])

    whole, error = run(4)
    again, resumed_error = run(4, ckpt_path=tmp_path / "epoch=1.ckpt", weights_only=True)
    assert torch.equal(whole, again) and error == resumed_error


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual optimization")
def test_a_checkpoint_restores_the_served_network_without_members(tmp_path, kind):
    task, fit = EmbeddingDotTask(dim=4, **KINDS[kind]), trainer()
    module = data()
    fit.fit(task, module)
    fit.save_checkpoint(tmp_path / "last.ckpt")
    loaded = load_task(tmp_path / "last.ckpt")
    assert torch.equal(parameters(loaded), parameters(task))
    assert not len(loaded.ensemble.members)
    assert loaded.network.dim == KINDS[kind].get("compress", 4)
    [before] = fit.test(task, module, verbose=False)
    [after] = trainer().test(EmbeddingDotTask(), data(), ckpt_path=tmp_path / "last.ckpt", verbose=False,
                             weights_only=True)  # fmt: skip
    assert before["test/rmse"] == after["test/rmse"]
    for table in task.network.tables()[:4]:
        assert not table[0].any()  # index 0


@pytest.mark.parametrize("kind", ["members, fused", "members, autograd"])
@pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual optimization")
def test_a_checkpoint_inside_an_epoch_has_the_current_average(tmp_path, kind):
    saver = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, every_n_train_steps=3)
    task = EmbeddingDotTask(dim=4, **KINDS[kind])
    fit = trainer(1, callbacks=[saver], enable_checkpointing=True)
    fit.fit(task, data())
    state = read_checkpoint(tmp_path / "step=3.ckpt")["state_dict"]
    members = [
        {name.split(".", 3)[3]: value for name, value in state.items() if name.startswith(f"ensemble.members.{at}.")}
        for at in range(3)
    ]
    mean = sum(one["user_factors.weight"] @ one["item_factors.weight"].T for one in members) / 3
    nearest = torch.linalg.svd(mean)
    expected = (nearest.U[:, :4] * nearest.S[:4]) @ nearest.Vh[:4]
    found = state["network.user_factors.weight"] @ state["network.item_factors.weight"].T
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_resuming_with_another_number_of_members_is_refused(tmp_path):
    fit = trainer(1)
    fit.fit(EmbeddingDotTask(dim=4, members=2), data())
    fit.save_checkpoint(tmp_path / "two.ckpt")
    for members in (1, 3):
        with pytest.raises(CheckpointError, match=r"--model.members: must be 2, as in the checkpoint, got"):
            trainer(2).fit(EmbeddingDotTask(dim=4, members=members), data(), ckpt_path=tmp_path / "two.ckpt",
                           weights_only=True)  # fmt: skip


ENGINES = ["fused", "autograd", "gibbs"]


@pytest.mark.parametrize(("before", "now"), [*itertools.permutations(ENGINES, 2)])
def test_resuming_with_another_engine_is_refused(tmp_path, before, now):
    fit = trainer(1)
    fit.fit(EmbeddingDotTask(dim=4, engine=before), data())
    fit.save_checkpoint(tmp_path / "before.ckpt")
    with pytest.raises(CheckpointError, match=f"must be {before} to resume a run of {before}, got {now}"):
        trainer(3).fit(EmbeddingDotTask(dim=4, engine=now), data(), ckpt_path=tmp_path / "before.ckpt",
                       weights_only=True)  # fmt: skip


@pytest.mark.slow
def test_posterior_draws_improve_on_the_members_for_noisy_ratings():
    made = {"num_users": 300, "num_items": 200, "num_ratings": 12_000, "dim": 4, "noise": 0.9}
    errors = []
    for options in ({"engine": "fused"}, {"engine": "gibbs"}):
        module = RatingsDataModule(source="synthetic", synthetic=made, split=SplitOptions(val_fraction=0))
        task, fit = (
            EmbeddingDotTask(dim=16, **options),
            trainer(10 if options["engine"] == "fused" else 40, limit_val_batches=0),
        )
        fit.fit(task, module)
        errors.append(fit.test(task, module, verbose=False)[0]["test/rmse"])
    assert errors[1] < errors[0]


def test_training_can_stop_early_and_with_an_open_end():
    stopper = EarlyStopping("val/rmse", patience=1, min_delta=1.0)
    fit = trainer(-1, callbacks=[stopper])
    fit.fit(EmbeddingDotTask(dim=4, engine="gibbs"), data())
    assert fit.current_epoch == 2


@pytest.mark.parametrize(
    ("task", "options", "reason"),
    [
        (lambda: EmbeddingMLPTask(dim=4, engine="gibbs"), {}, "it supports EmbeddingDot, not EmbeddingMLP"),
        (lambda: EmbeddingDotTask(dim=4, engine="gibbs", sigmoid=False), {}, "--model.sigmoid must be true"),
        (
            lambda: EmbeddingDotTask(dim=4, engine="gibbs"),
            {"precision": "64-true"},
            "--trainer.precision must be 32-true",
        ),
        (
            lambda: EmbeddingDotTask(dim=4, engine="gibbs", weight_decay=0.1),
            {},
            "--optimizer and --model.weight_decay need autograd",
        ),
    ],
)
def test_gibbs_sampling_is_refused_where_it_is_not_supported(task, options, reason):
    with pytest.raises(ConfigError, match=f"--model.engine gibbs: cannot be used, {reason}"):
        trainer(1, **options).fit(task(), data())


@pytest.mark.parametrize("name", ["members", "compress"])
def test_numbers_below_one_are_refused(name):
    with pytest.raises(ConfigError, match=f"^{name}: must be at least 1, got 0"):
        EmbeddingDotTask(dim=4, **{name: 0})
