"""The objectives by name. Another package adds its own by `register`."""

from __future__ import annotations

from difflib import get_close_matches

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

_objectives: dict[str, Objective] = {}


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
        names = [*_objectives, *["multitask"] * (name != "multitask")]
        near = get_close_matches(name, names, 1, 0.5)
        suggestion = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"--model.objective: must be one of {', '.join(names)}, got {name!r}{suggestion}")
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


def setting_names_of(name: str | None) -> list[str]:
    """Return the names of the settings of an objective; empty for one without settings, multitask or None."""
    objective = _objectives.get(name or "")
    return objective.setting_names() if isinstance(objective, RankingObjective) else []
