"""The fused engine on the CPU: equal to its reference, independent of threads, and under Lightning's Trainer."""

import math

import numpy as np
import pytest
import torch

pytest.importorskip("numba", reason="the fused engine needs the extra `fast`")

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from reference_fused_dot import reference_cells

from cflightning import EmbeddingDotTask, RatingsDataModule
from cflightning.data.splits.options import SplitOptions
from cflightning.engines.fused import FusedDescent, StageLoader
from cflightning.engines.stage_engine import STAGES, RowwiseAdagrad
from cflightning.kernels.rating_layout import BLOCK, block_starts, shuffled_blocks
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.models.penalty import Penalty
from cflightning.tasks.loading import load_task

SMALL = {"num_users": 300, "num_items": 200, "num_ratings": 6000}
VALIDATED = SplitOptions(val_fraction=0.05)


def columns(n=3000, users=60, items=90, seed=0):
    rng = np.random.default_rng(seed)
    return (torch.from_numpy(rng.integers(1, users, n)), torch.from_numpy(rng.integers(1, items, n)),
            torch.from_numpy(rng.integers(1, 6, n).astype(np.float32)))  # fmt: skip


def train(dim=8, threads=1, step=None, epochs=3, **options):
    torch.manual_seed(0)
    network = EmbeddingDot(60, 90, dim, (1.0, 5.0), 3.2, margin=0.125, **{"std": 0.1, **options})
    loader = StageLoader(*columns(), network=network, seed=1)
    optimizer = RowwiseAdagrad([network], 0.1)
    engine = FusedDescent(network, loader, optimizer, Penalty(0.008, 0.5), threads=threads, step=step)
    losses = []
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        losses.append(sum(engine.train_batch(stage, 0.1) for stage in loader))
    engine.close()
    return network, optimizer, losses


def parameters(network):
    return torch.cat([p.detach().reshape(-1) for p in network.parameters()])


@pytest.mark.slow
@pytest.mark.parametrize("dim", [1, 3, 16, 64])
def test_compiled_step_equals_the_reference(dim):
    fast, fast_memory, fast_losses = train(dim)
    slow, slow_memory, slow_losses = train(dim, step=reference_cells)
    torch.testing.assert_close(parameters(fast), parameters(slow), atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(fast_losses, slow_losses, rtol=1e-5)
    for a, b in zip(fast.parameters(), slow.parameters(), strict=True):
        if "sum" in fast_memory.state[a]:
            torch.testing.assert_close(fast_memory.state[a]["sum"], slow_memory.state[b]["sum"], atol=1e-5, rtol=1e-4)
    assert fast_losses[-1] < fast_losses[0]


def test_the_result_does_not_depend_on_the_number_of_threads():
    one, two, five = (parameters(train(threads=threads)[0]) for threads in (1, 2, 5))
    assert torch.equal(one, two)
    assert torch.equal(one, five)


def test_a_small_first_step_descends_the_gradient_of_autograd():
    # Row-wise AdaGrad scales vectors but does not rotate them: each moves against its own gradient.
    torch.manual_seed(0)
    network = EmbeddingDot(60, 90, 8, (1.0, 5.0), 3.2, margin=0.125, std=0.3)
    user, item, rating = columns(n=40)  # few, so that hardly an index occurs twice
    before = network.user_factors.weight.detach().clone()
    loss = ((network.train()(user, item) - rating).square() / 16).sum()
    weights = [(torch.bincount(rows, minlength=n).clamp(min=1) / 50) ** -0.5 for rows, n in ((user, 60), (item, 90))]
    users, items = network.squared_norms(user, item)
    (loss + 0.008 * (weights[0].float()[user] @ users + weights[1].float()[item] @ items)).backward()
    gradient = network.user_factors.weight.grad.clone()
    optimizer = RowwiseAdagrad([network], 1e-4)
    loader = StageLoader(user, item, rating, network=network)
    engine = FusedDescent(network, loader, optimizer, Penalty(0.008, 0.5))
    for stage in loader:
        engine.train_batch(stage, 1e-4)
    step = network.user_factors.weight.detach() - before
    single = torch.bincount(user, minlength=60) == 1
    cosine = torch.nn.functional.cosine_similarity(step[single], gradient[single])
    assert len(cosine) > 10
    assert cosine.max() < -0.999


@pytest.mark.parametrize("step", [None, reference_cells])
def test_only_biases_with_a_large_penalty_stay_near_zero(step):
    def biases(bias_l2):
        torch.manual_seed(0)
        network = EmbeddingDot(60, 90, 8, (1.0, 5.0), 3.2, margin=0.125, std=0.1)
        loader, optimizer = StageLoader(*columns(), network=network, seed=1), RowwiseAdagrad([network], 0.1)
        engine = FusedDescent(network, loader, optimizer, Penalty(0.008, 0.5), step=step, bias_l2=bias_l2)
        for epoch in range(2):
            loader.set_epoch(epoch)
            for stage in loader:
                engine.train_batch(stage, 0.1)
        return (table.weight.detach().abs().max() for table in (network.user_bias, network.item_bias))

    user, item = biases((0.0, 1e4))  # an explicit step would diverge
    assert user > 0.05
    assert item < 0.03
    user, item = biases((1e4, 0.0))
    assert user < 0.03
    assert item > 0.05


def test_index_0_stays_zero():
    network, _, _ = train()
    for table in (network.user_factors, network.item_factors, network.user_bias, network.item_bias):
        assert torch.count_nonzero(table.weight[0]) == 0


def test_an_epoch_has_every_block_of_every_cell_once():
    network = EmbeddingDot(60, 90, 4, (1.0, 5.0), 3.2)
    loader = StageLoader(*columns(5000), network=network)
    blocks = block_starts(loader.layout.starts)
    seen = {}
    for stage in loader:
        assert len({cell // STAGES for cell in stage.cells}) == len({cell % STAGES for cell in stage.cells}) == STAGES
        seen |= {int(cell): sorted(stage.order[blocks[cell] : blocks[cell + 1]].tolist()) for cell in stage.cells}
    assert {cell: list(range(blocks[cell + 1] - blocks[cell])) for cell in range(STAGES * STAGES)} == seen
    assert sum(stage.total for stage in loader) == loader.num_ratings == 5000
    first, second = (shuffled_blocks(blocks, np.uint64(seed)) for seed in (0, 1))
    assert len(first) >= 5000 // BLOCK
    assert not np.array_equal(first, second)


# Under Lightning -------------------------------------------------------------------------------------------------


def data(**options):
    return RatingsDataModule(**{"source": "synthetic", "synthetic": SMALL, "split": VALIDATED, **options})


def trainer(epochs=3, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return Trainer(**{"max_epochs": epochs, "enable_checkpointing": False, **quiet, **options})


@pytest.mark.slow
def test_it_learns_as_well_as_autograd():
    made = {"num_users": 800, "num_items": 200, "num_ratings": 50_000, "dim": 2, "noise": 0.3}
    results = {}
    for engine in ("autograd", "fused"):
        module, task, fit = (
            data(synthetic=made, batch_size=512),
            EmbeddingDotTask(dim=8, engine=engine, l2=0.004),
            trainer(10),
        )
        fit.fit(task, module)
        assert task.automatic_optimization is (engine == "autograd")
        results[engine] = fit.test(task, module, verbose=False)[0]["test/rmse"]
    floor = math.sqrt(module.table.noise_floor[module.split.test].mean())
    assert results["fused"] / floor < 1.2
    assert results["fused"] < results["autograd"] + 0.003


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")  # as when a user resumes
@pytest.mark.filterwarnings(
    "ignore:Using ModelCheckpoint with manual optimization"
)  # the state after the step is meant
@pytest.mark.parametrize("inside", [False, True])
def test_resumed_run_ends_like_an_uninterrupted_one(tmp_path, inside):
    every = {"every_n_train_steps": STAGES + 3} if inside else {"every_n_epochs": 1}

    def saving():
        saver = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, **every)
        return trainer(4, callbacks=[saver], enable_checkpointing=True)

    whole, straight = EmbeddingDotTask(dim=4, engine="fused"), saving()
    straight.fit(whole, data())
    assert straight.global_step == 4 * STAGES
    expected = float(straight.callback_metrics["val/rmse"])
    stopped = tmp_path / f"step={STAGES + 3 if inside else 2 * STAGES}.ckpt"
    task, again = EmbeddingDotTask(dim=4, engine="fused"), saving()
    again.fit(task, data(), ckpt_path=stopped, weights_only=True)
    assert torch.equal(parameters(task.network), parameters(whole.network))
    assert float(again.callback_metrics["val/rmse"]) == expected


def test_checkpoints_of_both_engines_are_of_the_same_network(tmp_path):
    module, task, fit = data(), EmbeddingDotTask(dim=4, engine="fused"), trainer()
    fit.fit(task, module)
    fit.save_checkpoint(tmp_path / "fused.ckpt")
    loaded = load_task(tmp_path / "fused.ckpt")
    assert torch.equal(parameters(loaded.network), parameters(task.network))
    loaded.engine = "autograd"
    trainer(1).fit(loaded.train(), data())  # continues by autograd
    assert not torch.equal(parameters(loaded.network), parameters(task.network))


def test_resuming_on_other_data_uses_the_layout_of_the_checkpoints_network(tmp_path):
    fit, task = trainer(1), EmbeddingDotTask(dim=4, engine="fused")
    fit.fit(task, data(split=SplitOptions(method="hash", val_fraction=0.05)))
    fit.save_checkpoint(tmp_path / "large.ckpt")
    frame = data().table.frame
    part = frame[(frame["user"] > 200) & frame["rating"].between(2.5, 3.5)]  # fewer ids, and a narrower range
    again, resumed = trainer(2), EmbeddingDotTask(dim=4, engine="fused")
    other = RatingsDataModule.from_frame(part, other_data=True, split=SplitOptions(method="hash", val_fraction=0.05))
    again.fit(resumed, other, ckpt_path=tmp_path / "large.ckpt", weights_only=True)
    loader, scale = again.train_dataloader, resumed.network.scale
    assert len(loader.layout.user_counts) == resumed.network.num_users
    assert len(loader.layout.item_counts) == resumed.network.num_items
    ratings = loader.layout.target * (scale.high - scale.low) + scale.low
    assert ratings.min() == pytest.approx(2.5, abs=0.05)
    assert ratings.max() == pytest.approx(3.5, abs=0.05)


NO_PROGRESS = {"patience": 0, "factor": 0.1, "threshold": 9, "threshold_mode": "abs"}  # no epoch is better


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("torch.optim.lr_scheduler.ExponentialLR", {"gamma": 0.5}, 0.2 * 0.5**3),
        ("torch.optim.lr_scheduler.ReduceLROnPlateau", NO_PROGRESS, 0.2 * 0.1**2),
    ],
)
def test_schedules_that_step_after_each_epoch(kind, options, expected):
    described = {"class_path": kind, "init_args": options}
    task, fit = EmbeddingDotTask(dim=4, engine="fused", learning_rate=0.2, lr_scheduler=described), trainer(3)
    fit.fit(task, data())
    assert not task.automatic_optimization
    assert fit.optimizers[0].param_groups[0]["lr"] == pytest.approx(expected)


def test_training_loss_is_in_rating_units():
    module, fit = data(), trainer(1)
    fit.fit(EmbeddingDotTask(dim=4, engine="fused", learning_rate=1e-9), module)
    ratings = module.table.ratings[module.split.train]
    assert float(fit.callback_metrics["train/loss"]) == pytest.approx(ratings.var(), rel=0.02)


def test_an_open_number_of_epochs_keeps_the_learning_rate(caplog):
    task, fit = EmbeddingDotTask(dim=4, engine="auto"), trainer(-1, max_time={"seconds": 1})
    fit.fit(task, data())
    assert not task.automatic_optimization
    assert fit.global_step > STAGES
    assert "the learning rate stays at 0.1" in caplog.text
