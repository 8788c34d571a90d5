"""The default optimiser: its rate and averages span the same number of ratings whatever the batch size."""

import math

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback

from cflightning import EmbeddingDotTask, RatingsDataModule
from cflightning.data.loaders.batches import default_batch_size

RATINGS = {"num_users": 300, "num_items": 200, "num_ratings": 30_000, "noise": 0.4, "seed": 1}


class Optimiser(Callback):
    """Keeps what the optimiser was made with: the peak rate and the shares of the newest gradient in both averages."""

    def on_train_start(self, trainer, task):
        [group, *_] = trainer.optimizers[0].param_groups
        self.rate, self.shares = group["initial_lr"], [1 - beta for beta in group["betas"]]


def train(tmp_path, batch_size=None, epochs=1, **options):
    kept = Optimiser()
    trainer = Trainer(
        max_epochs=epochs, accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, callbacks=[kept],
        enable_checkpointing=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    data = RatingsDataModule(source="synthetic", synthetic=RATINGS, batch_size=batch_size)
    task = EmbeddingDotTask(dim=8, objective="mse", engine="autograd", **options)
    trainer.fit(task, data)
    return kept, data, trainer.test(task, data, verbose=False)[0]["test/rmse"]


def test_the_default_batch_has_the_default_rate(tmp_path):
    kept, data, _ = train(tmp_path)
    assert data.batch_ratio == 1
    assert (kept.rate, kept.shares) == (0.01, [pytest.approx(0.1), pytest.approx(0.05)])


@pytest.mark.parametrize(("multiple", "used"), [(0.25, 0.25), (4, 4), (8, 8), (32, 8)])
def test_another_batch_scales_the_rate_by_the_root_and_the_averages_by_itself(tmp_path, multiple, used):
    kept, data, _ = train(tmp_path, int(default_batch_size(25_650) * multiple))
    assert data.batch_ratio == multiple
    assert kept.rate == pytest.approx(0.01 * math.sqrt(used))
    assert kept.shares == pytest.approx([0.1 * used, 0.05 * used])


def test_a_rate_that_is_given_is_kept(tmp_path):
    kept, _, _ = train(tmp_path, 1024, learning_rate=0.003)
    assert kept.rate == 0.003


@pytest.mark.slow
def test_a_large_batch_learns_about_as_fast_as_the_default(tmp_path):
    *_, usual = train(tmp_path, epochs=4)
    *_, large = train(tmp_path, default_batch_size(25_650) * 4, epochs=4)
    assert large == pytest.approx(usual, abs=0.08)  # .05; .18 with the rate and the averages of the default batch
