"""The settings that a search begins with: which are searched where none are named, and what they are by default."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.trainer import Trainer

from cflightning.cli.tune.ranges import Choices, Numbers, Range
from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.splits.split import TRAIN
from cflightning.errors import ConfigError
from cflightning.objectives.rankers import default_l2, default_temperature, default_weight
from cflightning.tasks.embedding import EmbeddingDotTask
from cflightning.tasks.rating import RatingTask


def default_ranges(task: Any, data: RatingsDataModule, given: frozenset[str] | set[str]) -> dict[str, Range]:
    """A small space around the defaults, for EmbeddingDotTask.

    Narrow, since few trials are made: on three data sets l2 at a third or three times the default costs one to three
    percent. The learning rate is not among those of ratings: the fused engine takes one by the number of epochs, and
    the best other one gained a third of a percent at most. Steps of dim are wide, since each dim is compiled.

    Args:
        task: whose settings are searched.
        data: that it is to learn from.
        given: options that are not to be searched.

    Raises:
        ConfigError: nothing is left to search.
    """
    found: dict[str, Range] = {}
    if isinstance(task, EmbeddingDotTask):
        found = _of_ratings(task) if task.predicts_ratings else _of_choices(task, data)
    # What ranks takes its l2 and learning rate from the task where it has none of its own.
    given = given | {name.replace("model.", "model.ranking.") for name in given}
    found = {name: one for name, one in found.items() if name not in given}
    if not found:
        raise ConfigError(
            f"tune: needs a range, since none is known for {type(task).__name__} but what has a value already; "
            'give one, such as --model.dim "{low: 16, high: 128, log: true}"'
        )
    return found


def _of_ratings(task: EmbeddingDotTask) -> dict[str, Range]:
    l2, exponent = task.penalty
    return {
        "model.l2": Numbers(l2 / 2, l2 * 2, log=True),
        "model.l2_exponent": Numbers(max(round(exponent - 0.2, 3), 0.0), round(exponent + 0.2, 3)),
        "model.dim": Numbers(32, 192, step=32),
        "trainer.max_epochs": Numbers(6, 24, log=True),
    }


def _of_choices(task: EmbeddingDotTask, data: RatingsDataModule) -> dict[str, Range]:
    """What says most of lists; wider than those of ratings, since what suits a table is known less well."""
    rows, users, items = data.split.sizes[TRAIN], data.num_users, data.num_items
    l2, temperature, weight = default_l2(rows), default_temperature(rows, users, items), default_weight(items)
    dim = Numbers(32, 128, step=32)
    by_objective: dict[str, dict[str, Range]] = {
        "ials": {"weight": _around(weight, 4), "l2": _around(0.015, 4)},
        "svd": {"user_power": Numbers(0.0, 0.6), "item_power": Numbers(0.2, 0.8), "score_power": Numbers(0.0, 0.6)},
        "bce": {"l2": _around(l2, 3), "negatives": Numbers(4, 16, log=True)},
        "bpr": {"l2": _around(l2, 3), "negatives": Numbers(4, 16, log=True)},
        "softmax": {"temperature": _around(temperature, 2)},
        "ccl": {"margin": Numbers(0.0, 0.8), "weight": Numbers(10.0, 600.0, log=True)},
    }
    settings, more = dict(by_objective[task.objective]), {"model.dim": dim}
    if task.objective == "svd":
        more["model.dim"] = Numbers(16, 256, step=16)
    elif task.objective == "ials":
        more["trainer.max_epochs"] = Numbers(2, 8)
    elif task.by_autograd:
        more |= {"model.learning_rate": Numbers(0.003, 0.1, log=True), "trainer.max_epochs": Numbers(10, 40, log=True)}
    else:
        settings["learning_rate"] = _around(0.1, 4)
        settings |= {"smooth": Numbers(0.0, 0.5)} if task.objective == "softmax" else {}
        more["trainer.max_epochs"] = Numbers(8, 48, log=True)
    return {f"model.ranking.{name}": one for name, one in settings.items()} | more


def _around(value: float, times: float) -> Numbers:
    return Numbers(value / times, value * times, log=True)


def in_effect(config: Namespace, task: Any, trainer: Trainer, ranges: Mapping[str, Range]) -> dict[str, Any]:
    """What the options that have ranges come to by default.

    Args:
        config: of the fit, without ranges.
        task: that was fitted.
        trainer: that has fitted it.
        ranges: option -> range.

    Returns:
        option -> value, as a trial draws it; without those where it is not known.
    """
    group = trainer.optimizers[0].param_groups[0]
    derived = {}
    if isinstance(task, RatingTask):
        derived = {"model.l2": task.penalty.l2, "model.l2_exponent": task.penalty.exponent}
        derived["model.learning_rate"] = group.get("initial_lr", group["lr"])
        derived |= {f"model.ranking.{name}": value for name, value in task.facts.get("ranking", {}).items()}
    if isinstance(task, EmbeddingDotTask):
        derived["model.dim"] = task.factors
    found: dict[str, Any] = {}
    for name, one in ranges.items():
        value = _at(config, name)
        if isinstance(one, Choices):
            found[name] = json.dumps(value, ensure_ascii=False, default=str)
            continue
        value = derived.get(name) if value is None else value
        if isinstance(value, int | float):
            found[name] = value if one.whole else float(value)
    return found


def _at(config: Any, name: str) -> Any:
    """The value of an option; None where there is none."""
    for part in name.split("."):
        if isinstance(config, Namespace):
            config = config.get("init_args") or config
        config = config.get(part) if isinstance(config, Namespace | dict) else None
    return config
