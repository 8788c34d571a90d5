"""The choice of a ranking model by validation rows."""

import json
import logging

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import Trainer

from cflightning import EmbeddingDotTask, RatingsDataModule
from cflightning.data.splits.options import SplitOptions
from cflightning.errors import ConfigError
from cflightning.objectives.settings import TableSize
from cflightning.tasks.loading import load_task
from cflightning.tasks.ranking_choice import best_trial, make_candidates

DENSE, SPARSE = TableSize(10_000, 300, 200), TableSize(10_000, 3_000, 2_000)


def ndcg(*means, users=400, spread=0.1, seed=0):
    """Values of users for several models with the given means, which differ from user to user."""
    noise = np.random.default_rng(seed).normal(0, spread, (len(means), users))
    noise -= noise.mean(1, keepdims=True)
    return [torch.from_numpy(mean + row) for mean, row in zip(means, noise, strict=True)]


@pytest.mark.parametrize(
    ("means", "best"),
    [
        ([0.2], 0),
        ([0.2, 0.2], 0),
        ([0.2, 0.205], 0),  # within noise: the difference has a standard error of .007
        ([0.2, 0.23], 1),
        ([0.2, 0.23, 0.26], 2),
        ([0.2, 0.205, 0.23], 2),
        ([0.2, 0.1, 0.23], 2),
    ],
)
def test_a_later_model_must_be_better_by_more_than_noise(means, best):
    assert best_trial(ndcg(*means)) == best


def test_few_users_do_not_change_the_model():
    assert best_trial([torch.tensor([0.1]), torch.tensor([0.9])]) == 0
    assert best_trial([torch.zeros(0), torch.zeros(0)]) == 0
    assert best_trial(ndcg(0.2, 0.23, users=8)) == 0


def test_candidates_depend_on_density_and_options():
    def names(size, objective=None, dim=None, options=None, separate=True):
        return [str(one) for one in make_candidates(objective, dim, options or {}, size, separate=separate)]

    scaled = "ease (dim 256, l2 3, user_power 0.3, item_power 0.5)"
    assert names(DENSE) == ["ease (dim 256)", "ials (dim 48)"]
    assert names(SPARSE) == ["ease (dim 256)", scaled, "ials (dim 48)"]
    assert names(DENSE, separate=False) == ["ease (dim 256)", "ials (dim 64)"]
    assert names(DENSE, dim=8) == ["ease (dim 8)", "ials (dim 8)"]
    assert names(SPARSE, "svd") == ["svd (dim 48)"]
    assert names(SPARSE, options={"l2": 7.0}) == ["ease (dim 256, l2 7)"]


def table(rows=900, users=40, items=30, seed=0):
    """Ratings of items of one of two groups, which the users prefer."""
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, users, rows), rng.integers(0, items, rows)
    item = np.where(rng.random(rows) < 0.9, item // 2 * 2 + user % 2, item)
    frame = pd.DataFrame({"user": user, "item": item, "rating": rng.integers(1, 6, rows)})
    return frame.drop_duplicates(["user", "item"])


def fit(frame, *, ranking=None, val_fraction=0.1, feedback="ratings", **options):
    """A model after a fit of an epoch."""
    split = SplitOptions(val_fraction=val_fraction)
    data = RatingsDataModule.from_frame(frame, split=split, feedback=feedback)
    model = EmbeddingDotTask(ranking=ranking, dim=4, **options)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", devices=1, limit_val_batches=int(val_fraction > 0), **quiet
    )  # fmt: skip
    trainer.fit(model, data)
    return model, trainer


@pytest.mark.parametrize("feedback", ["ratings", "implicit"])
def test_a_fit_without_options_compares_models(feedback, tmp_path, caplog):
    caplog.set_level(logging.INFO, "cflightning")
    frame = table() if feedback == "ratings" else table().drop(columns="rating")
    model, trainer = fit(frame, feedback=feedback)
    assert "recommendations by ease (dim " in caplog.text
    trials = model.metadata.ranking_trials
    assert [name.partition(" ")[0] for name in trials] == ["ease", "ials"]
    assert all(0 < value < 1 for value in trials.values())
    assert model.recommender.encoder.any()
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    loaded = load_task(tmp_path / "model.ckpt")
    assert loaded.metadata.ranking_trials == json.loads(json.dumps(trials))
    assert loaded.metadata.ranking_chosen == next(iter(trials))
    assert loaded.settings_used()["ranking"]["compared"] == trials
    assert loaded.objectives.ranking.name == "ease"
    for name, value in model.recommender.state_dict().items():
        assert torch.equal(value, loaded.recommender.state_dict()[name])


def test_another_model_that_is_better_replaces_the_first_one(monkeypatch, tmp_path):
    monkeypatch.setattr("cflightning.tasks.ranking_choice.best_trial", lambda ndcg: 1)
    model, trainer = fit(table())
    assert (model.objectives.ranking.name, model.recommender.dim, model.recommender.encoder) == ("ials", 48, None)
    assert model.heads[1].network is model.recommender
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    loaded = load_task(tmp_path / "model.ckpt")
    assert (loaded.objectives.ranking.name, loaded.recommender.dim) == ("ials", 48)
    assert loaded.metadata.ranking_chosen == "ials (dim 48)"
    assert torch.equal(loaded.recommender.tables().item_vectors, model.recommender.tables().item_vectors)


def test_without_validation_rows_there_is_no_choice():
    model, _ = fit(table(), val_fraction=0.0)
    assert (model.metadata.ranking_trials, model.objectives.ranking.name) == ({}, "ease")
    assert model.metadata.ranking_chosen == ""


def test_settings_leave_no_choice():
    model, _ = fit(table(), ranking={"l2": 9.0, "dim": 5})
    assert (model.metadata.ranking_trials, model.metadata.ranking["l2"], model.recommender.dim) == ({}, 9.0, 5)
    with pytest.raises(
        ConfigError, match="has l2, user_power, item_power, dropout, rating_weight with ease, got weight"
    ):
        fit(table(), ranking={"weight": 0.1})
