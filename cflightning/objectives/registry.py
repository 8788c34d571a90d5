"""The objectives by name, and the values of `--model.objective`. Another package adds objectives by `register`."""

from __future__ import annotations

from difflib import get_close_matches
from typing import NamedTuple

from cflightning.errors import ConfigError
from cflightning.objectives.base import Objective, RankingObjective
from cflightning.objectives.bce import Bce
from cflightning.objectives.bpr import Bpr
from cflightning.objectives.ccl import Ccl
from cflightning.objectives.ease import Ease
from cflightning.objectives.ials import Ials
from cflightning.objectives.mse import Mse
from cflightning.objectives.softmax import Softmax
from cflightning.objectives.svd import Svd

MULTITASK = "multitask"
"""Value of `--model.objective` for squared error of ratings and, by separate factors, a ranking objective."""
MULTITASK_RANKING = "ease"
"""Default ranking objective of multitask, unless another is chosen by validation rows: the best on most tables."""

_objectives: dict[str, Objective] = {}


class Objectives(NamedTuple):
    """The objectives of a model, at least one.

    Attributes:
        rating: Objective of the network that predicts ratings; None if there is no such network.
        ranking: Objective of the network that ranks; None if there is no such network.
    """

    rating: Mse | None
    ranking: RankingObjective | None

    @property
    def ranking_alone(self) -> RankingObjective | None:
        """The ranking objective of a model that predicts no ratings."""
        return self.ranking if self.rating is None else None


def register(objective: Objective) -> None:
    """Make an objective known by its name, as a value of `--model.objective`."""
    _objectives[objective.name] = objective


def unregister(name: str) -> None:
    """Forget an objective."""
    del _objectives[name]


for _class in (Mse, Bce, Bpr, Softmax, Ccl, Ease, Ials, Svd):
    register(_class())


def objective_names() -> list[str]:
    """Return the names of all objectives."""
    return list(_objectives)


def option_values() -> list[str]:
    """Return the values of `--model.objective`."""
    return [*_objectives, MULTITASK]


def solver_names() -> list[str]:
    """Return the names of the ranking objectives that have a solver, which multitask needs."""
    return [
        name
        for name, objective in _objectives.items()
        if isinstance(objective, RankingObjective) and objective.solver is not None
    ]


def sampled_loss_names() -> list[str]:
    """Return the names of the ranking objectives that autograd trains, on any device."""
    return [
        name
        for name, objective in _objectives.items()
        if isinstance(objective, RankingObjective) and objective.sampled_loss is not None
    ]


def find_objective(name: str) -> Objective:
    """Return an objective by its name.

    Raises:
        ConfigError: There is no such objective.
    """
    if name not in _objectives:
        near = get_close_matches(name, option_values(), 1, 0.5)
        suggestion = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"--model.objective: must be one of {', '.join(option_values())}, got {name!r}{suggestion}")
    return _objectives[name]


def find_ranking_objective(name: str) -> RankingObjective:
    """Return a ranking objective by its name.

    Raises:
        ConfigError: There is none of that name.
    """
    objective = find_objective(name)
    if not isinstance(objective, RankingObjective):
        raise ConfigError(f"--model.objective: must rank, got {name}")
    return objective


def find_objectives(option: str, ranking: str | None = None) -> Objectives:
    """Return the objectives that a value of `--model.objective` stands for.

    Args:
        option: The value.
        ranking: Ranking objective of multitask; None for the default.

    Raises:
        ConfigError: There is no such objective.
    """
    if option == MULTITASK:
        return Objectives(Mse(), find_ranking_objective(ranking or MULTITASK_RANKING))
    objective = find_objective(option)
    if isinstance(objective, RankingObjective):
        return Objectives(None, objective)
    assert isinstance(objective, Mse)
    return Objectives(objective, None)


def setting_names_of(name: str | None) -> list[str]:
    """Return the names of the settings of an objective; empty for one without settings, multitask or None."""
    objective = _objectives.get(name or "")
    return objective.setting_names() if isinstance(objective, RankingObjective) else []
