"""The best checkpoint of a fit is blended with the bias-only model if that lowers the validation error."""

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from cflightning import EmbeddingDotTask, RatingEvaluation, RatingsDataModule, Trainer
from cflightning.checkpoint.format import KEY, read_checkpoint
from cflightning.cli.training.cli import TrainingCLI
from cflightning.data.splits.options import SplitOptions
from cflightning.data.splits.split import VAL
from cflightning.tasks.loading import load_task
from cflightning.tasks.regularisation.bias_blending import blend_checkpoint


def table(factors, users=1500, items=400, rows=12_000, seed=0):
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, users, rows), rng.integers(0, items, rows)
    p, q = rng.normal(size=(users, 3)), rng.normal(size=(items, 3))
    truth = 3 + 0.5 * rng.normal(size=users)[user] + 0.5 * rng.normal(size=items)[item]
    truth += factors * (p[user] * q[item]).sum(1) + 0.5 * rng.normal(size=rows)
    frame = pd.DataFrame({"user": user, "item": item, "rating": truth.clip(1, 5)})
    return frame.drop_duplicates(["user", "item"])


def fitted(tmp_path, frame, epochs=2, callbacks=None, **options):
    """Fit in Python, by default without a best checkpoint, so that `a.ckpt` is not blended."""
    data = RatingsDataModule.from_frame(frame, split=SplitOptions(val_fraction=0.1))
    task = EmbeddingDotTask(dim=4, **options)
    trainer = Trainer(max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False,
                      enable_checkpointing=bool(callbacks), callbacks=callbacks, default_root_dir=tmp_path)  # fmt: skip
    trainer.fit(task, data)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    return tmp_path / "a.ckpt", data, RatingEvaluation().baseline(data)


def blend(path, data, baseline):
    task = load_task(path)
    return blend_checkpoint(path, task.network, task.vocabulary, data, baseline)


def held_out(data):
    user, item, rating = data.validation_ratings(data.split.sizes[VAL])
    return torch.from_numpy(user).long(), torch.from_numpy(item).long(), torch.from_numpy(rating)


@pytest.mark.parametrize("engine", ["fused", "autograd"])
def test_a_table_of_biases_alone_is_blended_as_the_formula_says(tmp_path, engine):
    path, data, baseline = fitted(tmp_path, table(0.0), engine=engine)
    user, item, rating = held_out(data)
    before = load_task(path).network
    share = blend(path, data, baseline)
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
    assert blend(path, data, baseline) < 0.3  # a second time changes little


def test_a_network_with_useful_factors_stays_as_it_is(tmp_path):
    path, data, baseline = fitted(tmp_path, table(0.6, users=300, items=100), epochs=10)
    before = path.read_bytes()
    assert blend(path, data, baseline) == 0
    assert path.read_bytes() == before


@pytest.mark.parametrize("options", [{"sigmoid": False}, {"engine": "autograd", "members": 2}])
def test_networks_without_sigmoid_and_ensembles_are_blended(tmp_path, options):
    path, data, baseline = fitted(tmp_path, table(0.0), **options)
    user, item, rating = held_out(data)
    before, share = load_task(path).network, blend(path, data, baseline)
    with torch.no_grad():
        errors = [float((one(user, item) - rating).square().mean()) for one in (before, load_task(path).network)]
    assert share > 0
    assert errors[1] < errors[0]


def test_few_validation_rows_change_nothing(tmp_path):
    path, data, baseline = fitted(tmp_path, table(0.0, rows=4000))
    before = path.read_bytes()
    assert data.split.sizes[VAL] < 500
    assert blend(path, data, baseline) == 0
    assert path.read_bytes() == before


def test_a_fit_in_python_gives_the_model_of_the_command_line(tmp_path):
    frame = table(0.3, users=800)
    frame.to_csv(tmp_path / "ratings.csv", index=False)
    cli = TrainingCLI(
        ["fit", "--data.path", str(tmp_path / "ratings.csv"), "--data.split.val_fraction", "0.1", "--model.dim", "4",
         "--model.objective", "mse", "--trainer.max_epochs", "4", "--trainer.accelerator", "cpu",
         "--trainer.enable_progress_bar", "false", "--trainer.default_root_dir", str(tmp_path)]
    )  # fmt: skip
    expected = read_checkpoint(cli.trainer.checkpoint_callback.best_model_path)
    folder = tmp_path / "python"
    best, last = ModelCheckpoint(folder, "best", "val/rmse"), ModelCheckpoint(folder, "last", mode="max")
    path, *_ = fitted(tmp_path, frame, epochs=4, callbacks=[best, last], objective="mse")
    found = read_checkpoint(best.best_model_path)
    assert float(found["state_dict"]["network.user_factors.weight"].abs().max()) > 0.01  # a share below 1
    assert found[KEY]["metrics"]["val/rmse"] == expected[KEY]["metrics"]["val/rmse"]
    assert found[KEY]["metrics"]["val/rmse"] < read_checkpoint(path)[KEY]["metrics"]["val/rmse"] - 1e-3
    for name, value in expected["state_dict"].items():
        assert torch.equal(found["state_dict"][name], value), name
    trained = read_checkpoint(path)["state_dict"]
    for name, value in read_checkpoint(last.best_model_path)["state_dict"].items():
        assert torch.equal(trained[name], value), name  # the last epoch, from which a run is resumed exactly
