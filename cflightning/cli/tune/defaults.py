"""The settings that a search starts from: the ranges that are searched by default, and the default values."""

from __future__ import annotations

import json
from collections.abc import Mapping, Set

from jsonargparse import Namespace
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer import Trainer

from cflightning.cli.tune.ranges import Choices, Range, Value
from cflightning.data.datamodule import RatingsDataModule
from cflightning.errors import ConfigError
from cflightning.tasks.rating import RecommenderTask


def default_ranges(task: LightningModule, data: RatingsDataModule, with_value: Set[str]) -> dict[str, Range]:
    """Return the search space of the task's objective: a small one around its defaults.

    Args:
        task: The task whose settings are searched.
        data: Its data.
        with_value: Options that the user has set, which are not searched.

    Raises:
        ConfigError: No range is left.
    """
    ranges: dict[str, Range] = {}
    if isinstance(task, RecommenderTask):
        ranges |= task.search_space(data)
    # A ranking objective without an l2 or learning rate of its own uses that of the task.
    with_value = with_value | {name.replace("model.", "model.ranking.") for name in with_value}
    ranges = {name: option_range for name, option_range in ranges.items() if name not in with_value}
    if not ranges:
        raise ConfigError(
            f"tune: needs a range, since {type(task).__name__} has no default range without a value; "
            'give one, such as --model.dim "{low: 16, high: 128, log: true}"'
        )
    return ranges


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
    if isinstance(task, RecommenderTask):
        group = trainer.optimizers[0].param_groups[0]
        derived = {"model.learning_rate": group.get("initial_lr", group["lr"])} | task.resolved_options()
    values: dict[str, Value] = {}
    for name, option_range in ranges.items():
        value = _option(config, name)
        if isinstance(option_range, Choices):
            values[name] = json.dumps(value, ensure_ascii=False, default=str)
            continue
        value = derived.get(name) if value is None else value
        if isinstance(value, int | float):
            values[name] = value if option_range.whole else float(value)
    return values


def _option(config: object, name: str) -> object:
    """Return the value of an option; None without one."""
    for part in name.split("."):
        if isinstance(config, Namespace):
            config = config.get("init_args") or config
        config = config.get(part) if isinstance(config, Namespace | dict) else None
    return config
