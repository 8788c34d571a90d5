"""The penalties adapt to the validation ratings."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from cflightning import EmbeddingDotTask, RatingEvaluation, RatingsDataModule, Trainer
from cflightning.data.splits.options import SplitOptions
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.tasks.regularisation.adaptive_penalty import (
    FACTOR_RANGE,
    GAIN,
    LOG_HIGH,
    LOG_LOW,
    SLOPE_RANGE,
    SVDPP_RANGE,
    AdaptivePenalty,
)
from cflightning.tasks.regularisation.ridge import Slope

USERS, ITEMS = 1000, 500


def frame(n=36_000, factor=0.0, noise=0.9, seed=0):
    """Biases, two planted factors and noise, clipped to 1 to 5; the choice of items is random."""
    rng = np.random.default_rng(seed)
    user, item = np.divmod(rng.choice(USERS * ITEMS, n, replace=False), ITEMS)
    rating = 3 + 0.4 * rng.normal(size=USERS)[user] + 0.4 * rng.normal(size=ITEMS)[item]
    rating += factor * (rng.normal(size=(USERS, 2))[user] * rng.normal(size=(ITEMS, 2))[item]).sum(1) / math.sqrt(2)
    return pd.DataFrame({"user": user, "item": item, "rating": (rating + noise * rng.normal(size=n)).clip(1, 5)})


class Course(Callback):
    """Keeps the multiples at the end of each batch."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):
        found = task.current_fit.adaptive_penalty
        self.seen.append(None if found is None else (found.factor_scale, found.svdpp_scale))


def fit(table, tmp_path, epochs=10, callbacks=(), ckpt_path=None, val_fraction=0.1, **options):
    data = RatingsDataModule.from_frame(table, split=SplitOptions(val_fraction=val_fraction))
    task, course, best = (
        EmbeddingDotTask(**options),
        Course(),
        ModelCheckpoint(tmp_path, "best", "val/rmse"),
    )
    if not val_fraction:
        best = ModelCheckpoint(tmp_path, "best")
    trainer = Trainer(
        max_epochs=epochs, callbacks=[RatingEvaluation(), course, best, *callbacks], logger=False, accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
        limit_val_batches=1.0 if val_fraction else 0,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(task, data, ckpt_path=ckpt_path, weights_only=True)
    [figures] = trainer.test(task, data, ckpt_path=best.best_model_path, weights_only=True, verbose=False)
    return task, figures, course.seen


# Slopes -------------------------------------------------------------------------------------------------------------


def network(user_mean=0.0):
    """A network of one user and many items."""
    torch.manual_seed(0)
    net = EmbeddingDot(3, 2001, 4, (0.0, 1.0), 0.5, margin=0.125, std=0.3)
    with torch.no_grad():
        net.user_factors.weight[1] = user_mean + torch.tensor([0.3, -0.4, 0.2, 0.1])
    return net


def held(net, keep):
    """An adaptive penalty of ratings by the user vector `keep` (float32 [dim]), with some noise."""
    user, item = torch.ones(2000, dtype=torch.int64), torch.arange(1, 2001)
    with torch.no_grad():
        rating = net.scale((keep * net.item_factors.weight[1:]).sum(1) + net.global_bias)
    return AdaptivePenalty(user, item, rating + 0.02 * torch.randn(2000))


def test_the_slopes_of_factors_and_of_svdpp_terms_are_measured_separately():
    net = network()
    own = net.user_factors.weight[1].detach().clone()
    factors, svdpp = held(net, own / 2).slopes(net, None)
    assert factors.value == pytest.approx(0.5, abs=0.05)
    assert 0 < factors.std < 0.05
    assert svdpp is None
    mean = torch.zeros(3, 4)
    mean[1] = torch.tensor([0.0, -0.4, 0.0, 0.0])  # one factor is the SVD++ term's, and noise
    factors, svdpp = held(net, own - mean[1]).slopes(net, {"user_factors": mean})
    assert svdpp.value < 0.25
    assert 0.3 < factors.value < 0.7


def test_slopes_have_a_range():
    net = network()
    own = net.user_factors.weight[1].detach().clone()
    assert held(net, -own).slopes(net, None)[0].value == SLOPE_RANGE[0]


# Updates -------------------------------------------------------------------------------------------------------------


class FixedSlopes(AdaptivePenalty):
    """An adaptive penalty that measures given slopes."""

    def __init__(self, factors, svdpp=None, std=0.0):
        self.measured = Slope(factors, std), None if svdpp is None else Slope(svdpp, std)
        self.factor_scale = self.svdpp_scale = 1.0

    def slopes(self, network, means):
        return self.measured


def updated(share, *slopes, times=1):
    penalty = FixedSlopes(*slopes)
    for _ in range(times):
        penalty.update(None, None, share)
    return penalty.factor_scale, penalty.svdpp_scale


def test_penalties_stay_during_warmup_and_while_slopes_are_good():
    assert updated(0.19, 0.3, 0.3) == (1, 1)
    assert updated(0.22, 2.0, 1.0) == (1, 1)  # factors are still growing
    for share in (0.2, 0.5, 1.0):
        for slope in (math.exp(LOG_LOW) + 1e-6, 1.0, math.exp(LOG_HIGH) - 1e-6):
            assert updated(share, slope, slope) == (1, 1)


def test_penalties_rise_when_factors_overfit_and_fall_when_they_underfit():
    factors, svdpp = updated(0.5, 0.43)
    assert factors == pytest.approx((math.exp(LOG_LOW) / 0.43) ** GAIN)
    assert svdpp == 1
    factors, svdpp = updated(0.5, 2.6, 2.6)
    assert factors == pytest.approx((math.exp(LOG_HIGH) / 2.6) ** GAIN)
    assert svdpp == 1  # never lowered
    assert updated(0.5, 2.6, 2.6, 1.4) == (1, 1)  # the slope is too uncertain
    assert updated(0.5, 0.2, times=9)[0] == FACTOR_RANGE[1]
    assert updated(0.5, 5.0, times=9)[0] == FACTOR_RANGE[0]


def test_the_penalty_on_svdpp_terms_rises_first():
    factors, svdpp = updated(0.5, 0.5, 0.5)
    assert factors == 1
    assert svdpp > 3
    factors, svdpp = updated(0.5, 0.5, 0.5, times=9)
    assert svdpp == SVDPP_RANGE[1]
    assert factors > 1  # then that on the factors
    assert updated(0.5, 0.5, 1.0)[1] == 1


# Fits ---------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "svdpp"), [("fused", "both"), ("fused", "user"), ("fused", "none"), ("autograd", "both")]
)
def test_a_table_of_biases_alone_is_fitted_as_well_as_by_the_baseline(tmp_path, engine, svdpp):
    _, figures, course = fit(frame(), tmp_path, engine=engine, svdpp=svdpp)
    assert figures["test/rmse"] < 1.003 * figures["test/baseline_rmse"]
    assert course[-1][1] == 1 or svdpp != "none"
    (tmp_path / "fixed").mkdir()
    _, fixed, course = fit(
        frame(), tmp_path / "fixed", engine=engine, svdpp=svdpp, l2=0.008 if svdpp == "none" else 0.02
    )
    assert course[-1] is None  # a given l2 is not adapted
    assert figures["test/rmse"] < fixed["test/rmse"] + 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["fused", "autograd"])
def test_the_penalty_falls_on_a_table_with_strong_factors(tmp_path, engine):
    table = frame(factor=1.0, noise=0.1)
    _, figures, course = fit(table, tmp_path, engine=engine)
    assert course[-1][0] < 0.5
    _, fixed, _ = fit(table, tmp_path, engine=engine, l2=0.02)
    assert figures["test/rmse"] < 0.8 * fixed["test/rmse"]


def test_without_validation_ratings_nothing_is_adapted(tmp_path):
    _, _, course = fit(frame(n=2000), tmp_path, epochs=2, val_fraction=0.0)
    assert course[-1] is None


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "steps"), [("fused", 80), ("autograd", 570)])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, engine, steps):
    saver = ModelCheckpoint(tmp_path, "at-{step}", save_top_k=-1, every_n_train_steps=steps // 2 + 1)
    whole, _, course = fit(frame(), tmp_path, callbacks=[saver], engine=engine)
    [stopped] = [path for path in tmp_path.glob("at-*") if path.stem.endswith(f"={steps // 2 + 1}")]
    again, _, rest = fit(frame(), tmp_path, engine=engine, ckpt_path=stopped)
    assert len(course) == steps
    assert course[steps // 2] != (1, 1)
    assert rest == course[steps // 2 + 1 :]
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[name]), name


@pytest.mark.slow
def test_members_share_one_adaptive_penalty(tmp_path):
    _, figures, course = fit(frame(), tmp_path, members=2)
    assert max(course[-1]) > 1.5
    assert figures["test/rmse"] < 1.003 * figures["test/baseline_rmse"]
