"""The options `objective` and `ranking`: their defaults and checks."""

from __future__ import annotations

from collections.abc import Mapping

from cflightning.errors import ArgumentError
from cflightning.objectives.registry import MULTITASK, objective_names, setting_names_of, solver_names
from cflightning.utils.arguments import Arguments

SEPARATE_OPTIONS = ("objective", "dim", "epochs")
"""Options of `--model.ranking` that are settings of a multitask model and not of its ranking objective."""


def default_objective(implicit: bool, by_autograd: bool) -> str:
    """Return the value of `--model.objective` if none is given.

    Args:
        implicit: Whether the data is implicit feedback.
        by_autograd: Whether autograd trains, as on devices other than the CPU.
    """
    if implicit:
        return "bce" if by_autograd else "ease"
    return MULTITASK


def check_ranking(check: Arguments) -> None:
    """Refuse options of `ranking` that are unknown to the objective, or no numbers."""
    options, objective = check.values["ranking"], check.values["objective"]
    if options is None:
        return
    if not isinstance(options, Mapping):
        raise check.refuse("ranking", "be settings by name")
    separate = Arguments("model", {f"ranking.{name}": options.get(name) for name in SEPARATE_OPTIONS})
    separate.choice("ranking.objective", solver_names(), optional=True)
    for name in ("dim", "epochs"):
        separate.whole(f"ranking.{name}", 1, optional=True)
    known = setting_names_of(objective)
    suffix = f" with {objective}" if known else ""
    known = known or [
        *SEPARATE_OPTIONS,
        *dict.fromkeys(name for one in objective_names() for name in setting_names_of(one)),
    ]
    if unknown := [str(name) for name in options if name not in known]:
        raise ArgumentError("model", "ranking", f"has {', '.join(known)}{suffix}, got {', '.join(unknown)[:60]}")
    for name, value in options.items():
        if name != "objective" and value is not None and not isinstance(value, bool | int | float):
            raise check.refuse("ranking", f"have a number for {name}", value)
