"""A trained network is blended with the bias-only model if that lowers the validation error."""

import numpy as np
import pandas as pd
import pytest
import torch

from cflightning import EmbeddingDotTask, RatingsDataModule, Trainer
from cflightning.checkpoint.format import KEY, read_checkpoint
from cflightning.data.splits.options import SplitOptions
from cflightning.data.splits.split import TRAIN, VAL
from cflightning.metrics.baseline import fit_baseline
from cflightning.tasks.bias_blending import blend_with_biases
from cflightning.tasks.loading import load_task


def table(factors, users=1500, items=400, rows=12_000, seed=0):
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, users, rows), rng.integers(0, items, rows)
    p, q = rng.normal(size=(users, 3)), rng.normal(size=(items, 3))
    truth = 3 + 0.5 * rng.normal(size=users)[user] + 0.5 * rng.normal(size=items)[item]
    truth += factors * (p[user] * q[item]).sum(1) + 0.5 * rng.normal(size=rows)
    frame = pd.DataFrame({"user": user, "item": item, "rating": truth.clip(1, 5)})
    return frame.drop_duplicates(["user", "item"])


def fitted(tmp_path, frame, epochs=2, **options):
    data = RatingsDataModule.from_frame(frame, split=SplitOptions(val_fraction=0.1))
    task = EmbeddingDotTask(dim=4, **options)
    trainer = Trainer(max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False,
                      enable_checkpointing=False, default_root_dir=tmp_path)  # fmt: skip
    trainer.fit(task, data)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    seen = data.table
    baseline = fit_baseline(seen.user.codes, seen.item.codes, seen.ratings, data.split.parts == TRAIN,
                            len(seen.user.ids), len(seen.item.ids))  # fmt: skip
    return tmp_path / "a.ckpt", data, baseline


def held_out(data):
    user, item, rating = data.validation_ratings(data.split.sizes[VAL])
    return torch.from_numpy(user).long(), torch.from_numpy(item).long(), torch.from_numpy(rating)


@pytest.mark.parametrize("engine", ["fused", "autograd"])
def test_a_table_of_biases_alone_is_blended_as_the_formula_says(tmp_path, engine):
    path, data, baseline = fitted(tmp_path, table(0.0), engine=engine)
    user, item, rating = held_out(data)
    before = load_task(path).network
    share = blend_with_biases(path, data, baseline)
    after = load_task(path).network
    assert 0.3 < share <= 1
    with torch.no_grad():
        error = [float((network(user, item) - rating).square().mean().sqrt()) for network in (before, after)]
        # The blend, from the baseline's biases by raw id.
        ids = data.vocabulary.users.values, data.vocabulary.items.values
        found = [
            dict(zip(known.ids.values.tolist(), values.tolist(), strict=True))
            for known, values in ((data.table.user, baseline.user), (data.table.item, baseline.item))
        ]
        low, high = before.scale.low, before.scale.high
        middle = (baseline.mean - low) / (high - low)
        slope = (high - low) * middle * (1 - middle)
        for u, i in ((1, 1), (5, 7), (0, 3), (4, 0)):
            alone = np.log(middle / (1 - middle))
            alone += (found[0][ids[0][u - 1]] / slope if u else 0) + (found[1][ids[1][i - 1]] / slope if i else 0)
            mixed = (1 - share) * float(before.logit(torch.tensor([u]), torch.tensor([i]))) + share * alone
            assert float(after.logit(torch.tensor([u]), torch.tensor([i]))) == pytest.approx(mixed, abs=1e-4)
    assert error[1] < error[0]
    assert read_checkpoint(path)[KEY]["metrics"]["val/rmse"] == pytest.approx(error[1], abs=1e-6)
    assert blend_with_biases(path, data, baseline) < 0.3  # a second time changes little


def test_a_network_with_useful_factors_stays_as_it_is(tmp_path):
    path, data, baseline = fitted(tmp_path, table(0.6, users=300, items=100), epochs=10)
    before = path.read_bytes()
    assert blend_with_biases(path, data, baseline) == 0
    assert path.read_bytes() == before


@pytest.mark.parametrize("options", [{"sigmoid": False}, {"engine": "autograd", "members": 2}])
def test_networks_without_sigmoid_and_ensembles_are_blended(tmp_path, options):
    path, data, baseline = fitted(tmp_path, table(0.0), **options)
    user, item, rating = held_out(data)
    before, share = load_task(path).network, blend_with_biases(path, data, baseline)
    with torch.no_grad():
        errors = [float((one(user, item) - rating).square().mean()) for one in (before, load_task(path).network)]
    assert share > 0
    assert errors[1] < errors[0]


def test_few_validation_rows_change_nothing(tmp_path):
    path, data, baseline = fitted(tmp_path, table(0.0, rows=4000))
    before = path.read_bytes()
    assert data.split.sizes[VAL] < 500
    assert blend_with_biases(path, data, baseline) == 0
    assert path.read_bytes() == before
