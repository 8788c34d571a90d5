"""A network of another package: one nn.Module and a task of a few lines, trained, tested and restored."""

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn

from cflightning import RatingsDataModule, RecommenderTask
from cflightning.data.splits.options import SplitOptions
from cflightning.models.network import RatingScale, ScoringNetwork, embedding_table
from cflightning.tasks.loading import load_task
from cflightning.testing import NetworkContract, TaskContract

SYNTHETIC = {"num_users": 60, "num_items": 40, "num_ratings": 1200}
VALIDATED = SplitOptions(val_fraction=0.05)


class Distance(ScoringNetwork):
    """Scores by the negative squared distance of a user's and an item's point."""

    def __init__(self, num_users, num_items, dim=4, rating_range=None, mean_rating=None, sigmoid=True, margin=0.0,
                 std=0.1):  # fmt: skip
        super().__init__(num_users, num_items, RatingScale(rating_range, sigmoid, margin))
        self.user_points, self.item_points = (embedding_table(n, dim, std) for n in (num_users, num_items))
        self.bias = nn.Parameter(torch.tensor(0.0 if mean_rating is None else self.scale.inverse(mean_rating)))

    def logit(self, user, item):
        return self.bias - (self.user_points(user) - self.item_points(item)).square().sum(-1)

    def catalogue(self, user):
        return self.bias - (self.user_points(user)[:, None] - self.item_points.weight).square().sum(-1)

    def item_vectors(self):
        return self.item_points.weight

    def squared_norms(self, user, item):
        return self.user_points(user).square().sum(-1), self.item_points(item).square().sum(-1)


class DistanceTask(RecommenderTask):
    """Task of `Distance`.

    Args:
        dim: Dimensions of the points.
        kwargs: As for `NetworkTask`.
    """

    def __init__(self, dim: int = 4, **kwargs):
        super().__init__(**kwargs)
        self.dim = dim
        self.save_hyperparameters()

    def build_network(self, num_users, num_items, rating_range, mean_rating):
        return Distance(num_users, num_items, self.dim, rating_range, mean_rating, self.sigmoid, self.margin)


class TestDistance(NetworkContract):
    def make(self, num_users, num_items, **kwargs):
        return Distance(num_users, num_items, **kwargs)


class TestDistanceTask(TaskContract):
    def make(self):
        return DistanceTask(dim=2, learning_rate=0.05)


def test_a_custom_task_predicts_ratings_by_autograd_and_reports_its_settings(tmp_path):
    task = DistanceTask(dim=3, seed=5)
    data = RatingsDataModule(source="synthetic", synthetic=SYNTHETIC, split=VALIDATED)
    trainer = Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
                      enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    trainer.fit(task, data)
    assert (task.predicts_ratings, task.predicts_rankings) == (True, False)
    assert (task.engine_name, task.settings_used()["task"]) == ("autograd", "DistanceTask")
    assert repr(task).startswith("DistanceTask(") and "60 users" in repr(task)
    trainer.save_checkpoint(tmp_path / "distance.ckpt")
    loaded = load_task(tmp_path / "distance.ckpt")
    assert isinstance(loaded, DistanceTask)
    assert loaded.dim == 3
    users, items = torch.arange(5), torch.arange(5)
    torch.testing.assert_close(loaded(users, items), task.eval()(users, items), rtol=0, atol=0)


def test_ranking_a_custom_rating_network_is_by_its_ratings():
    task = DistanceTask()
    data = RatingsDataModule(source="synthetic", synthetic=SYNTHETIC, split=VALIDATED)
    trainer = Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
                      enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    trainer.fit(task, data)
    assert task.recommender is task.network
    with pytest.raises(RuntimeError, match="not attached"):
        _ = DistanceTask().trainer
    assert DistanceTask().attached_trainer is None
