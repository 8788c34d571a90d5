"""The settings that a search starts from: the ranges that are searched by default, and the default values."""

from __future__ import annotations

import json
from collections.abc import Mapping, Set

from jsonargparse import Namespace
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer import Trainer

from cflightning.cli.tune.ranges import Choices, Numbers, Range, Value
from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.splits.split import TRAIN
from cflightning.errors import ConfigError
from cflightning.objectives.rankers import default_l2, default_temperature, default_weight
from cflightning.tasks.embedding import EmbeddingDotTask
from cflightning.tasks.rating import RatingTask


def default_ranges(task: LightningModule, data: RatingsDataModule, with_value: Set[str]) -> dict[str, Range]:
    """Return a small space around the defaults, for EmbeddingDotTask.

    The ranges are narrow, since a search has few trials: on three data sets an l2 of a third or of three times the
    default costs one to three percent. The learning rate of rating models is not among them: the fused engine derives
    it from the number of epochs, and the best other one gained a third of a percent at most. The steps of dim are
    wide, since each dim is compiled.

    Args:
        task: The task whose settings are searched.
        data: Its data.
        with_value: Options that the user has set, which are not searched.

    Raises:
        ConfigError: No range is left.
    """
    ranges: dict[str, Range] = {}
    if isinstance(task, EmbeddingDotTask):
        ranges = _rating_ranges(task) if task.predicts_ratings else _ranking_ranges(task, data)
    # A ranking objective without an l2 or learning rate of its own uses that of the task.
    with_value = with_value | {name.replace("model.", "model.ranking.") for name in with_value}
    ranges = {name: one for name, one in ranges.items() if name not in with_value}
    if not ranges:
        raise ConfigError(
            f"tune: needs a range, since {type(task).__name__} has no default range without a value; "
            'give one, such as --model.dim "{low: 16, high: 128, log: true}"'
        )
    return ranges


def _rating_ranges(task: EmbeddingDotTask) -> dict[str, Range]:
    l2, exponent = task.penalty
    return {
        "model.l2": Numbers(l2 / 2, l2 * 2, log=True),
        "model.l2_exponent": Numbers(max(round(exponent - 0.2, 3), 0.0), round(exponent + 0.2, 3)),
        "model.dim": Numbers(32, 192, step=32),
        "trainer.max_epochs": Numbers(6, 24, log=True),
    }


def _ranking_ranges(task: EmbeddingDotTask, data: RatingsDataModule) -> dict[str, Range]:
    """Return the settings with most influence; wider than for ratings, since good values differ more between tables."""
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


def values_in_effect(
    config: Namespace, task: LightningModule, trainer: Trainer, ranges: Mapping[str, Range]
) -> dict[str, Value]:
    """Return the values that a fit without ranges used for the options that have ranges.

    Args:
        config: Configuration of the fit.
        task: The fitted task.
        trainer: Its Trainer.
        ranges: Option -> range.

    Returns:
        Option -> value as in a trial, where the value is known.
    """
    derived: dict[str, object] = {}
    if isinstance(task, RatingTask):
        group = trainer.optimizers[0].param_groups[0]
        derived = {"model.l2": task.penalty.l2, "model.l2_exponent": task.penalty.exponent}
        derived["model.learning_rate"] = group.get("initial_lr", group["lr"])
        derived |= {f"model.ranking.{name}": value for name, value in task.facts.get("ranking", {}).items()}
    if isinstance(task, EmbeddingDotTask):
        derived["model.dim"] = task.factors
    values: dict[str, Value] = {}
    for name, one in ranges.items():
        value = _option(config, name)
        if isinstance(one, Choices):
            values[name] = json.dumps(value, ensure_ascii=False, default=str)
            continue
        value = derived.get(name) if value is None else value
        if isinstance(value, int | float):
            values[name] = value if one.whole else float(value)
    return values


def _option(config: object, name: str) -> object:
    """Return the value of an option; None without one."""
    for part in name.split("."):
        if isinstance(config, Namespace):
            config = config.get("init_args") or config
        config = config.get(part) if isinstance(config, Namespace | dict) else None
    return config
