"""The registry of objectives: every objective is complete, and another package adds its own."""

from dataclasses import dataclass, fields

import pandas as pd
import pytest
from lightning.pytorch import Trainer

from cflightning import EmbeddingDotTask, RatingsDataModule
from cflightning.data.splits.options import SplitOptions
from cflightning.errors import ConfigError
from cflightning.objectives.base import RankingObjective
from cflightning.objectives.registry import (
    find_objective,
    find_ranking_objective,
    objective_names,
    register,
    solver_names,
    unregister,
)
from cflightning.objectives.sampled_loss import SampledLoss, SampledSettings
from cflightning.objectives.settings import TableSize
from cflightning.tasks.loading import load_task

RANKING = [name for name in objective_names() if isinstance(find_objective(name), RankingObjective)]
SIZE = TableSize(interactions=10_000, users=300, items=200)


@dataclass(frozen=True, kw_only=True)
class HingeSettings(SampledSettings):
    """Settings of the hinge loss.

    Attributes:
        margin: difference of scores from which a negative costs nothing.
        l2: penalty on the vectors that a sample looks up.
    """

    margin: float = 1.0
    l2: float | None = 0.001


class HingeLoss(SampledLoss[HingeSettings]):
    """Hinge loss by autograd."""

    def score_loss(self, positive, negatives, log_q):
        return (self.settings.margin - positive[:, None] + negatives).clamp(min=0).sum()


class Hinge(RankingObjective):
    """The chosen item scores above each negative sample by a margin."""

    name = "hinge"
    settings_class = HingeSettings
    sampled_loss = HingeLoss

    def search_space(self, size, *, by_autograd):
        return self.gradient_search_space({}, by_autograd=by_autograd)


@pytest.fixture
def hinge():
    register(Hinge())
    yield
    unregister("hinge")


def data(**options):
    pairs = [(u, i) for u in range(40) for i in range(30) if u % 2 == i % 2 and (u * 7 + i * 3) % 5]
    frame = pd.DataFrame(pairs, columns=["user", "item"]).assign(rating=[1.0 + at % 5 for at in range(len(pairs))])
    split = SplitOptions("per_user", test_fraction=0.2, val_fraction=0.05)
    return RatingsDataModule.from_frame(frame, batch_size=64, split=split, **options)


def test_an_objective_of_another_package_trains_and_is_restored_from_its_checkpoint(hinge, tmp_path):
    task = EmbeddingDotTask(dim=4, objective="hinge", learning_rate=0.05, ranking={"margin": 0.5})
    trainer = Trainer(max_epochs=8, accelerator="cpu", logger=False, enable_checkpointing=False,
                      enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    module = data()
    trainer.fit(task, module)
    [metrics] = trainer.test(task, module, verbose=False)
    assert metrics["test/ndcg@10"] > 0.5
    assert task.settings_used()["ranking"]["margin"] == 0.5
    assert "model.learning_rate" in task.search_space(module)
    trainer.save_checkpoint(tmp_path / "hinge.ckpt")
    loaded = load_task(tmp_path / "hinge.ckpt")
    assert (loaded.metadata.objective, loaded.predicts_rankings) == ("hinge", True)
    assert loaded.bundle_fold_in_settings(30).rescale


def test_an_unknown_objective_is_refused():
    with pytest.raises(ConfigError, match=r"objective: must be one of mse, bce, .*, multitask or None, got 'hinge'"):
        EmbeddingDotTask(objective="hinge")
    with pytest.raises(ConfigError, match="must be one of mse, bce"):
        find_objective("hinge")
    with pytest.raises(ConfigError, match="must rank, got mse"):
        find_ranking_objective("mse")


@pytest.mark.parametrize("name", RANKING)
def test_a_ranking_objective_has_documented_settings_a_search_space_and_a_fold_in(name):
    objective = find_ranking_objective(name)
    settings = objective.settings_class
    described = " ".join(base.__doc__ for base in settings.__mro__[:-1])
    assert all(f"{field.name}:" in described for field in fields(settings)), settings
    for by_autograd in {objective.solver is None, objective.sampled_loss is not None}:
        ranges = objective.search_space(SIZE, by_autograd=by_autograd)
        assert "model.dim" in ranges
        searched = {option.removeprefix("model.ranking.") for option in ranges if "ranking" in option}
        assert searched <= set(settings.defaults(by_autograd=by_autograd))
    weights = objective.bundle_fold_in_settings({}, 200)
    assert (weights.weight, weights.rescale) == (0.3, name != "ials")


@pytest.mark.parametrize(
    ("name", "by_solver", "by_autograd"), [("bce", 32, 20), ("softmax", 16, 20), ("bpr", 20, 20), ("ials", 3, 3)]
)
def test_the_default_number_of_epochs_depends_on_autograd(name, by_solver, by_autograd):
    objective = find_ranking_objective(name)
    assert objective.default_epochs(by_autograd=False) == by_solver
    assert objective.default_epochs(by_autograd=True) == by_autograd


def test_multitask_needs_a_solver():
    assert solver_names() == [name for name in RANKING if find_ranking_objective(name).solver is not None]
