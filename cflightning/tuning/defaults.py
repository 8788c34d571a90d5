"""The settings that a search begins with: which are searched where none are named, and what they are by default."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.trainer import Trainer

from cflightning.errors import ConfigError
from cflightning.tasks.embedding import EmbeddingDotTask
from cflightning.tasks.rating import RatingTask
from cflightning.tuning.ranges import Choices, Numbers, Range


def default_ranges(task: Any, given: frozenset[str] | set[str]) -> dict[str, Range]:
    """A small space around the defaults, for EmbeddingDotTask.

    Narrow, since few trials are made: on three data sets l2 at a third or three times the default costs one to three
    percent. The learning rate is not among them: the fused engine takes one by the number of epochs, and the best other
    one gained a third of a percent at most. Steps of dim are wide, since each dim is compiled.

    Args:
        task: whose settings are searched.
        given: options that are not to be searched.

    Raises:
        ConfigError: nothing is left to search.
    """
    found: dict[str, Range] = {}
    if isinstance(task, EmbeddingDotTask):
        l2, exponent = task.penalty
        found = {
            "model.l2": Numbers(l2 / 2, l2 * 2, log=True),
            "model.l2_exponent": Numbers(max(round(exponent - 0.2, 3), 0.0), round(exponent + 0.2, 3)),
            "model.dim": Numbers(32, 192, step=32),
            "trainer.max_epochs": Numbers(6, 24, log=True),
        }
    found = {name: one for name, one in found.items() if name not in given}
    if not found:
        raise ConfigError(
            f"tune: needs a range, since none is known for {type(task).__name__} but what has a value already; "
            'give one, such as --model.dim "{low: 16, high: 128, log: true}"'
        )
    return found


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
    found: dict[str, Any] = {}
    for name, one in ranges.items():
        top, _, key = name.partition(".")
        node = config.get(top)
        value = (node.get("init_args") or node).get(key) if isinstance(node, Namespace) else node
        if isinstance(one, Choices):
            found[name] = json.dumps(value, ensure_ascii=False, default=str)
            continue
        value = derived.get(name) if value is None else value
        if isinstance(value, int | float):
            found[name] = value if one.whole else float(value)
    return found
