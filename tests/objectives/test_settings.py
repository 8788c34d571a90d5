"""Settings of the ranking objectives: their defaults for the solver and for autograd, and the options that set them."""

import pytest

from cflightning import EmbeddingDotTask
from cflightning.errors import ConfigError
from cflightning.objectives.bce import BceSettings
from cflightning.objectives.ccl import CclSettings
from cflightning.objectives.ease import EaseSettings
from cflightning.objectives.ials import IalsSettings
from cflightning.objectives.registry import find_objective, objective_names
from cflightning.objectives.sampled_loss import SampledSettings
from cflightning.objectives.settings import TableSize
from cflightning.objectives.softmax import SoftmaxSettings

SHARED = {"in_batch": False, "dropout": 0.0, "smooth": 0.0}
SOLVER = {
    "bce": {"negatives": 8, "l2": None, "learning_rate": 0.05, "last_rate": 0.003},
    "softmax": {"negatives": 256, "temperature": None, "learning_rate": 0.1, "last_rate": 0.01, "smooth_items": 0.15},
    "ials": {"weight": None, "l2": 0.015, "exponent": 1.0, "block": 64},
    "ease": {"l2": None, "user_power": 0.2, "item_power": 0.0, "dropout": 0.2, "rating_weight": 0.5},
    "svd": {"user_power": 0.3, "item_power": 0.5, "score_power": 0.4},
}
AUTOGRAD = {
    "bce": {"negatives": 8, "l2": None, **SHARED},
    "bpr": {"negatives": 8, "l2": None, **SHARED},
    "softmax": {"negatives": 1024, "l2": 0.0, **SHARED, "temperature": None},
    "ccl": {"negatives": 1024, "l2": 0.0, **SHARED, "margin": 0.4, "weight": 150.0},
}


def defaults(by_autograd):
    """Return the default settings of the objectives that have a sampled loss, or of those that have a solver."""
    objectives = [find_objective(name) for name in objective_names() if name != "mse"]
    return {
        objective.name: objective.settings_class.defaults(by_autograd=by_autograd)
        for objective in objectives
        if (objective.sampled_loss if by_autograd else objective.solver) is not None
    }


def test_the_defaults_of_the_solver_and_of_autograd():
    assert defaults(by_autograd=False) == SOLVER
    assert defaults(by_autograd=True) == AUTOGRAD


def test_the_help_of_the_task_lists_every_setting_with_its_default():
    text = " ".join(EmbeddingDotTask.__doc__.split())

    def line(name, values):
        return f"{name}: " + ", ".join(key if value is None else f"{key} {value:g}" for key, value in values.items())

    for name, values in SOLVER.items():
        assert line(name, values) in text
    by_autograd = text.partition("By autograd")[2]
    for name, values in AUTOGRAD.items():
        assert line(name, {key: value for key, value in values.items() if key not in SHARED}) in by_autograd
    assert all(name in by_autograd for name in SHARED)


def test_defaults_that_depend_on_the_training_part():
    small, large = TableSize(10_000, 300, 200), TableSize(2_000_000, 50_000, 40_000)
    for settings, values in (
        (SampledSettings(), (0.02907, 0.005)),
        (BceSettings(), (0.02907, 0.005)),
        (BceSettings(l2=0.1), (0.1, 0.1)),
        (CclSettings(), (0.0, 0.0)),
        (IalsSettings(), (0.015, 0.015)),
        (EaseSettings(), (256.1, 267.5)),
    ):
        assert (settings.resolve(small).l2, settings.resolve(large).l2) == pytest.approx(values, rel=1e-3)
    assert [IalsSettings().resolve(size).weight for size in (small, large)] == [0.3, 300 / 40_000]
    assert IalsSettings(weight=0.1).resolve(small).weight == 0.1
    temperatures = [SoftmaxSettings().resolve(size).temperature for size in (small, large)]
    assert temperatures == pytest.approx([0.2390, 0.08592], rel=1e-3)
    assert SoftmaxSettings(temperature=0.5).resolve(small).temperature == 0.5


def test_settings_have_the_types_of_their_defaults():
    options = {"negatives": 4.0, "margin": 2, "in_batch": True, "l2": None}
    settings = CclSettings.make(options, "ccl", by_autograd=True)
    assert settings.values(by_autograd=True) == {**AUTOGRAD["ccl"], "negatives": 4, "in_batch": True, "margin": 2.0}
    assert isinstance(settings.negatives, int) and isinstance(settings.margin, float)


@pytest.mark.parametrize(
    ("by_autograd", "known", "unknown"),
    [
        (False, "negatives, l2, learning_rate, last_rate", {"dropout": 0.1, "in_batch": True}),
        (True, "negatives, l2, in_batch, dropout, smooth", {"last_rate": 0.1, "colour": 1}),
    ],
)
def test_a_setting_that_the_training_does_not_have_is_refused(by_autograd, known, unknown):
    with pytest.raises(ConfigError, match=f"--model.ranking: has {known} with bce, got {', '.join(sorted(unknown))}"):
        BceSettings.make(unknown, "bce", by_autograd=by_autograd)
