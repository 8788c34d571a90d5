"""The fused engine on a GPU: its reference against the CPU engine, its loader, the Trainer, and its kernel."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from reference_fused_dot_gpu import reference_stage

from cflightning import RatingsDataModule
from cflightning.data.splits.options import SplitOptions
from cflightning.engines.fused_gpu import FusedGpuDescent, GpuStage, GpuStageLoader
from cflightning.engines.schedule import one_cycle
from cflightning.engines.stage_engine import STAGES, RowwiseAdagrad
from cflightning.kernels.adagrad import GPU_BLOCK
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.models.penalty import Penalty

needs_triton = pytest.mark.skipif(
    find_spec("triton") is None, reason="the kernel needs Triton, which torch with CUDA or the extra `gpu` brings"
)


def columns(n=3000, users=60, items=90, seed=0):
    rng = np.random.default_rng(seed)
    return (torch.from_numpy(rng.integers(1, users, n)), torch.from_numpy(rng.integers(1, items, n)),
            torch.from_numpy(rng.integers(1, 6, n).astype(np.float32)))  # fmt: skip


def network(dim=4, users=60, items=90):
    torch.manual_seed(0)
    return EmbeddingDot(users, items, dim, (1.0, 5.0), 3.2, margin=0.125, std=0.1)


def parameters(network):
    return torch.cat([p.detach().reshape(-1) for p in network.parameters()])


# The rule --------------------------------------------------------------------------------------------------------


def test_it_learns_as_well_as_the_cpu_engine():
    pytest.importorskip("numba", reason="the CPU's engine needs the extra `fast`")
    from cflightning.engines.fused import FusedDescent, StageLoader

    made = {"num_users": 800, "num_items": 200, "num_ratings": 50_000, "dim": 2, "noise": 0.3}
    data = RatingsDataModule(source="synthetic", synthetic=made, split=SplitOptions(val_fraction=0.0))
    parts = []
    for rows in (data.split.train, data.split.test):
        frame = data.table.frame.iloc[rows]
        ids = data.vocabulary.users.indices(frame["user"]), data.vocabulary.items.indices(frame["item"])
        rating = torch.from_numpy(frame["rating"].to_numpy(np.float32, copy=True))
        parts.append((*map(torch.from_numpy, ids), rating))
    errors = {}
    for name in ("cpu", "gpu"):
        torch.manual_seed(0)
        model = EmbeddingDot(data.num_users, data.num_items, 8, data.rating_range, data.mean_rating, margin=0.125)
        optimizer = RowwiseAdagrad([model], 0.075)
        given = [column.clone() for column in parts[0]]  # the CPU's layout sorts them in place
        if name == "cpu":
            loader = StageLoader(*given, network=model)
            engine = FusedDescent(model, loader, optimizer, Penalty(0.004, 0.5))
        else:  # 512 ratings in flight
            loader = GpuStageLoader(*given, network=model)
            engine = FusedGpuDescent(
                model,
                loader,
                optimizer,
                Penalty(0.004, 0.5),
                step=lambda *a, **_: reference_stage(*a, ratings=8 * GPU_BLOCK),
            )
        for epoch in range(10):
            loader.set_epoch(epoch)
            for number, stage in enumerate(loader):
                engine.train_batch(stage, 0.075 * one_cycle(epoch * len(loader) + number, 10 * len(loader)))
        engine.close()
        user, item, rating = parts[1]
        with torch.no_grad():
            errors[name] = float((model.eval()(user, item) - rating).square().mean().sqrt())
    floor = data.table.noise_floor[data.split.test].mean() ** 0.5
    assert errors["gpu"] / floor < 1.2
    assert errors["gpu"] == pytest.approx(errors["cpu"], abs=0.005)


def test_the_reference_does_not_depend_on_the_unit_if_no_index_occurs_twice():
    user, item = (torch.arange(1, 51, dtype=torch.int32) for _ in range(2))
    results = []
    for ratings in (1, 16, 64):
        model = network(users=60, items=60)
        loader = GpuStageLoader(user.long(), item.long(), torch.full((50,), 4.0), network=model)
        engine = FusedGpuDescent(
            model, loader, RowwiseAdagrad([model], 0.1), Penalty(0.008, 0.5),
            # The learning rate of the global bias is 0.
            step=lambda *a, ratings=ratings, **_: reference_stage(*a[:12], 0.0, *a[13:], ratings=ratings),
        )  # fmt: skip
        loss = sum(float(engine.train_batch(stage, 0.1)) for stage in loader)
        results.append((parameters(model), loss))
    for values, loss in results[1:]:
        torch.testing.assert_close(values, results[0][0])
        assert loss == pytest.approx(results[0][1])


def test_index_0_stays_zero_and_the_optimizer_holds_the_accumulators():
    model = network()
    optimizer = RowwiseAdagrad([model], 0.1)
    loader = GpuStageLoader(*columns(), network=model)
    engine = FusedGpuDescent(model, loader, optimizer, Penalty(0.008, 0.5), step=reference_stage)
    for stage in loader:
        loss = engine.train_batch(stage, 0.1)
        assert loss.dtype == torch.float64
    for table in (model.user_factors, model.item_factors, model.user_bias, model.item_bias):
        assert torch.count_nonzero(table.weight[0]) == 0
        sums = optimizer.state[table.weight]["sum"]
        assert sums[0] == 0
        assert (sums[1:] > 0).all()


# Its loader ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 63, 64, 65, 511, 1000, 5000])
def test_an_epoch_has_every_rating_once_and_stages_know_their_size(n):
    user, item, rating = columns(n)
    model = network()
    loader = GpuStageLoader(user, item, rating, network=model, seed=3)
    scale = model.scale
    packed = sorted(zip(user.tolist(), item.tolist(), rating.tolist(), strict=True))
    for epoch in range(3):
        loader.set_epoch(epoch)
        stages = list(loader)
        assert len(stages) == len(loader) == STAGES
        served = []
        for stage in stages:
            at = (stage.order.long()[:, None] * GPU_BLOCK + torch.arange(GPU_BLOCK)).reshape(-1)
            at = at[at < n]
            assert len(at) == stage.total
            back = loader.target[at] * (scale.high - scale.low) + scale.low
            served += zip(loader.user[at].tolist(), loader.item[at].tolist(), back.round().tolist(), strict=True)
        assert sorted(served) == packed
    assert loader.num_ratings == n
    assert [len(counts) for counts in loader.counts] == [60, 90]


def test_orders_differ_between_epochs_and_depend_on_the_seed():
    model = network()

    def order(seed, epoch):
        loader = GpuStageLoader(*columns(5000), network=model, seed=seed)
        loader.set_epoch(epoch)
        return torch.cat([stage.order for stage in loader]), loader.user

    first, user = order(1, 0)
    assert all(map(torch.equal, (first, user), order(1, 0)))
    assert not torch.equal(first, order(1, 1)[0])
    assert torch.equal(user, order(1, 1)[1])
    assert not torch.equal(user, order(2, 0)[1])
    place = [int((order(1, epoch)[0] == 5000 // GPU_BLOCK).nonzero()) for epoch in range(5)]
    assert len(set(place)) > 1  # position of the ragged block


def test_a_resumed_epoch_yields_the_remaining_stages():
    model = network()
    loader, again = (GpuStageLoader(*columns(), network=model) for _ in range(2))
    for part in (loader, again):
        part.set_epoch(2)
    whole = list(loader)
    passing = iter(loader)
    for _ in range(3):
        next(passing)
    again.load_state_dict(loader.state_dict())
    rest = list(again)
    assert len(rest) == STAGES - 3
    assert all(torch.equal(a.order, b.order) for a, b in zip(whole[3:], rest, strict=True))
    assert len(list(again)) == STAGES


# Under Lightning -------------------------------------------------------------------------------------------------


class Fit(LightningModule):
    """A module that trains by the engine alone."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.network = network()
        self.losses, self.orders = [], []

    def train_dataloader(self):
        return GpuStageLoader(*columns(), network=self.network, seed=1)

    def configure_optimizers(self):
        return RowwiseAdagrad([self.network], 0.1)

    def on_train_start(self):
        optimizer, loader = self.optimizers(use_pl_optimizer=False), self.trainer.train_dataloader
        self.engine = FusedGpuDescent(self.network, loader, optimizer, Penalty(0.008, 0.5), step=reference_stage)

    def training_step(self, stage, index):
        assert isinstance(stage, GpuStage)
        self.orders.append(stage.order)
        self.losses.append(self.optimizers().step(closure=lambda: self.engine.train_batch(stage, 0.1)))


def fit(epochs, folder=None, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    saver = ModelCheckpoint(folder, filename="{step}", save_top_k=-1, every_n_train_steps=STAGES + 3) if folder else []
    module, trainer = Fit(), Trainer(max_epochs=epochs, callbacks=saver, enable_checkpointing=bool(folder), **quiet)
    trainer.fit(module, **options)
    return module


@pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual optimization")
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
def test_the_trainer_resumes_inside_an_epoch(tmp_path):
    whole = fit(4, tmp_path)
    assert len(whole.orders) == 4 * STAGES
    epochs = [torch.cat(whole.orders[at : at + STAGES]) for at in range(0, 4 * STAGES, STAGES)]
    assert not torch.equal(epochs[0], epochs[1])
    assert sum(whole.losses[-STAGES:]) < sum(whole.losses[:STAGES])
    resumed = fit(4, tmp_path, ckpt_path=tmp_path / f"step={STAGES + 3}.ckpt", weights_only=True)
    assert len(resumed.orders) == 4 * STAGES - STAGES - 3
    assert torch.equal(parameters(resumed.network), parameters(whole.network))


@needs_triton
@pytest.mark.gpu
def test_engine_on_a_gpu_learns_like_the_reference():
    results = {}
    for name, device, step in (("kernel", "cuda", None), ("reference", "cpu", reference_stage)):
        model = network(16, 600, 900).to(device)
        rng = np.random.default_rng(0)
        factors = [rng.standard_normal((rows, 2)) for rows in (600, 900)]
        user, item = rng.integers(1, 600, 100_000), rng.integers(1, 900, 100_000)
        rating = (3 + 0.7 * (factors[0][user] * factors[1][item]).sum(1)).clip(1, 5).astype(np.float32)
        loader = GpuStageLoader(*map(torch.from_numpy, (user, item, rating)), network=model)
        engine = FusedGpuDescent(model, loader, RowwiseAdagrad([model], 0.1), Penalty(0.001, 0.5), step=step)
        for epoch in range(4):
            loader.set_epoch(epoch)
            stages = list(loader)
            torch.cuda.set_sync_debug_mode("error")  # no stage waits for the device
            losses = [engine.train_batch(stage, 0.1) for stage in stages]
            torch.cuda.set_sync_debug_mode("default")
        results[name] = float(sum(losses) / len(user)) ** 0.5
    assert results["kernel"] == pytest.approx(results["reference"], rel=0.03)
