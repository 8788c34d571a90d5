"""Held-out rows set the strength of the penalties."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from cflightning import EmbeddingDotTask, Evaluation, RatingsDataModule, Trainer
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.tasks.adaptive_penalty import (
    BAG_RANGE,
    DOUBT,
    GAIN,
    ROW_RANGE,
    TOO_LARGE,
    TOO_SMALL,
    AdaptivePenalty,
    Multiple,
    find_multiple,
)

USERS, ITEMS = 1000, 500


def frame(n=36_000, factor=0.0, noise=0.9, seed=0):
    """Biases, two planted factors and noise, cut to 1 to 5; who rates what says nothing."""
    rng = np.random.default_rng(seed)
    user, item = np.divmod(rng.choice(USERS * ITEMS, n, replace=False), ITEMS)
    rating = 3 + 0.4 * rng.normal(size=USERS)[user] + 0.4 * rng.normal(size=ITEMS)[item]
    rating += factor * (rng.normal(size=(USERS, 2))[user] * rng.normal(size=(ITEMS, 2))[item]).sum(1) / math.sqrt(2)
    return pd.DataFrame({"user": user, "item": item, "rating": (rating + noise * rng.normal(size=n)).clip(1, 5)})


class Course(Callback):
    """The multiples as they were when each batch ended."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):
        found = task._adaptive_penalty
        self.seen.append(None if found is None else (found.rows, found.bags))


def fit(table, tmp_path, epochs=10, callbacks=(), ckpt_path=None, val_fraction=0.1, **options):
    data = RatingsDataModule.from_frame(table, val_fraction=val_fraction)
    task, course, best = (
        EmbeddingDotTask(**options),
        Course(),
        ModelCheckpoint(tmp_path, "best", "val/rmse"),
    )
    if not val_fraction:
        best = ModelCheckpoint(tmp_path, "best")
    trainer = Trainer(
        max_epochs=epochs, callbacks=[Evaluation(), course, best, *callbacks], logger=False, accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
        limit_val_batches=1.0 if val_fraction else 0,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(task, data, ckpt_path=ckpt_path, weights_only=True)
    [figures] = trainer.test(task, data, ckpt_path=best.best_model_path, weights_only=True, verbose=False)
    return task, figures, course.seen


# What held-out rows say ---------------------------------------------------------------------------------------------


def test_the_multiple_is_that_of_least_squares():
    rng = np.random.default_rng(0)
    truth, noise = rng.normal(size=100_000), 0.5 * rng.normal(size=100_000)
    for size in (0.5, 1.0, 2.0):  # what the scores hold, as a multiple of the truth
        part = size * truth
        assert find_multiple(part, truth + noise - part).value == pytest.approx(1 / size, abs=0.01)
    assert find_multiple(rng.normal(size=100_000), noise).value == pytest.approx(
        1, abs=0.01
    )  # errors are of the scores with it
    learnt = rng.normal(size=100_000)
    assert find_multiple(learnt, noise - learnt).value == pytest.approx(0.2)  # 0, within bounds


def test_few_rows_hardly_say_anything():
    part = np.array([0.1, -0.1])
    assert find_multiple(part, np.array([-1.0, 1.0])).value == pytest.approx(1, abs=0.1)
    assert find_multiple(np.zeros(5), np.ones(5)) == (1, DOUBT)
    assert find_multiple(np.ones(5), np.zeros(5)) == (1, DOUBT)
    assert find_multiple(np.zeros(0), np.zeros(0)) == (1, DOUBT)


def network(user_mean=0.0):
    """One user and many items; ratings are what it says with factors of half the size, and some noise."""
    torch.manual_seed(0)
    net = EmbeddingDot(3, 2001, 4, (0.0, 1.0), 0.5, margin=0.125, std=0.3)
    with torch.no_grad():
        net.user_factors.weight[1] = user_mean + torch.tensor([0.3, -0.4, 0.2, 0.1])
    return net


def held(net, keep):
    """Held-out rows that agree with factors cut to `keep` (float32 [dim], of the user)."""
    user, item = torch.ones(2000, dtype=torch.int64), torch.arange(1, 2001)
    with torch.no_grad():
        rating = net.scale((keep * net.item_factors.weight[1:]).sum(1) + net.global_bias)
    return AdaptivePenalty(user, item, rating + 0.02 * torch.randn(2000))


def test_factors_and_what_bags_bring_into_them_are_told_apart():
    net = network()
    own = net.user_factors.weight[1].detach().clone()
    wanted, bags = held(net, own / 2).wanted(net, None)
    assert wanted.value == pytest.approx(0.5, abs=0.05)
    assert 0 < wanted.doubt < 0.05
    assert bags is None
    mean = torch.zeros(3, 4)
    mean[1] = torch.tensor([0.0, -0.4, 0.0, 0.0])  # one factor is the bag's; it says nothing
    wanted, bags = held(net, own - mean[1]).wanted(net, {"user_factors": mean})
    assert bags.value < 0.25
    assert 0.3 < wanted.value < 0.7


# The course ---------------------------------------------------------------------------------------------------------


class Told(AdaptivePenalty):
    """Held-out rows that say what they are told to."""

    def __init__(self, factors, bags=None, doubt=0.0):
        self.told = Multiple(factors, doubt), None if bags is None else Multiple(bags, doubt)
        self.rows = self.bags = 1.0

    def wanted(self, network, means):
        return self.told


def looked(share, *told, times=1):
    steering = Told(*told)
    for _ in range(times):
        steering.look(None, None, share)
    return steering.rows, steering.bags


def test_nothing_is_moved_early_or_where_all_is_well():
    assert looked(0.19, 0.3, 0.3) == (1, 1)
    assert looked(0.22, 2.0, 1.0) == (1, 1)  # factors are still growing
    for share in (0.2, 0.5, 1.0):
        for told in (math.exp(TOO_LARGE) + 1e-6, 1.0, math.exp(TOO_SMALL) - 1e-6):
            assert looked(share, told, told) == (1, 1)


def test_penalties_rise_where_factors_have_learnt_noise_and_fall_where_they_are_held_down():
    rows, bags = looked(0.5, 0.43)
    assert rows == pytest.approx((math.exp(TOO_LARGE) / 0.43) ** GAIN)
    assert bags == 1
    rows, bags = looked(0.5, 2.6, 2.6)
    assert rows == pytest.approx((math.exp(TOO_SMALL) / 2.6) ** GAIN)
    assert bags == 1  # never below what they are
    assert looked(0.5, 2.6, 2.6, 1.4) == (1, 1)  # too few rows to be sure
    assert looked(0.5, 0.2, times=9)[0] == ROW_RANGE[1]
    assert looked(0.5, 5.0, times=9)[0] == ROW_RANGE[0]


def test_bags_come_first():
    rows, bags = looked(0.5, 0.5, 0.5)
    assert rows == 1
    assert bags > 3
    rows, bags = looked(0.5, 0.5, 0.5, times=9)
    assert bags == BAG_RANGE[1]
    assert rows > 1  # then it is the factors
    assert looked(0.5, 0.5, 1.0)[1] == 1


# Fits ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("engine", "svdpp"), [("fused", "both"), ("fused", "user"), ("fused", "none"), ("autograd", "both")]
)
def test_where_there_is_nothing_to_learn_a_fit_is_as_good_as_biases(tmp_path, engine, svdpp):
    _, figures, course = fit(frame(), tmp_path, engine=engine, svdpp=svdpp)
    assert figures["test/rmse"] < 1.003 * figures["test/baseline_rmse"]
    assert course[-1][1] == 1 or svdpp != "none"
    (tmp_path / "fixed").mkdir()
    _, fixed, course = fit(
        frame(), tmp_path / "fixed", engine=engine, svdpp=svdpp, l2=0.008 if svdpp == "none" else 0.02
    )
    assert course[-1] is None  # what is given is taken
    assert figures["test/rmse"] < fixed["test/rmse"] + 1e-4


@pytest.mark.parametrize("engine", ["fused", "autograd"])
def test_where_there_is_much_to_learn_factors_are_let_grow(tmp_path, engine):
    table = frame(factor=1.0, noise=0.1)
    _, figures, course = fit(table, tmp_path, engine=engine)
    assert course[-1][0] < 0.5
    _, fixed, _ = fit(table, tmp_path, engine=engine, l2=0.02)
    assert figures["test/rmse"] < 0.8 * fixed["test/rmse"]


def test_without_held_out_rows_nothing_is_steered(tmp_path):
    _, _, course = fit(frame(n=2000), tmp_path, epochs=2, val_fraction=0.0)
    assert course[-1] is None


@pytest.mark.parametrize(("engine", "steps"), [("fused", 80), ("autograd", 570)])
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not(tmp_path, engine, steps):
    saver = ModelCheckpoint(tmp_path, "at-{step}", save_top_k=-1, every_n_train_steps=steps // 2 + 1)
    whole, _, course = fit(frame(), tmp_path, callbacks=[saver], engine=engine)
    [stopped] = [path for path in tmp_path.glob("at-*") if path.stem.endswith(f"={steps // 2 + 1}")]
    again, _, rest = fit(frame(), tmp_path, engine=engine, ckpt_path=stopped)
    assert len(course) == steps
    assert course[steps // 2] != (1, 1)
    assert rest == course[steps // 2 + 1 :]
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[name]), name


def test_several_members_are_steered_as_one(tmp_path):
    _, figures, course = fit(frame(), tmp_path, members=2)
    assert max(course[-1]) > 1.5
    assert figures["test/rmse"] < 1.003 * figures["test/baseline_rmse"]
