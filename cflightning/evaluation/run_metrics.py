"""`metrics.json` of a run: figures in groups, beside the settings that were used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FORMAT = 2
GROUPS = {"test": "test", "val": "validation", "train": "training", "seconds": "seconds"}
"""Prefix of a logged figure -> its group in the file."""
BASELINE, BIASES, EPOCHS = "baseline_", "biases", "epochs"


def group_metrics(figures: Mapping[str, float], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of `metrics.json`.

    Args:
        figures: Logged name (`test/rmse`, `val/ndcg@10`, `test/popularity/hr@10`, `seconds/train`) -> value.
        settings: What was used, as plain data.

    Returns:
        `format`; `settings`; `test`, `validation` and `training` with the figures of the model; `baselines` with those
        of other models on the same test rows, by name (`biases`: user and item biases alone); `seconds` by phase.
    """
    content: dict[str, Any] = {"format": FORMAT, "settings": dict(settings)}
    groups: dict[str, Any] = {name: {} for name in ("test", "baselines", "validation", "training", "seconds")}
    for name, value in sorted(figures.items()):
        prefix, _, figure = name.partition("/")
        other, _, of_other = figure.rpartition("/")
        if name == EPOCHS:
            groups["training"][name] = value
        elif prefix == "test" and figure.startswith(BASELINE):
            groups["baselines"].setdefault(BIASES, {})[figure.removeprefix(BASELINE)] = value
        elif prefix == "test" and other:
            groups["baselines"].setdefault(other, {})[of_other] = value
        else:
            groups.setdefault(GROUPS.get(prefix, prefix), {})[figure] = value
    return content | {name: figures for name, figures in groups.items() if figures}


def read_metrics(path: Path) -> dict[str, float]:
    """Return the figures of a `metrics.json` by the names under which they were logged.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not JSON, or not of this format.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"must be metrics of format {FORMAT}")
    figures: dict[str, float] = {}
    prefixes = {group: prefix for prefix, group in GROUPS.items()}
    for group, values in content.items():
        if group == "baselines":
            for other, of_other in values.items():
                prefix = f"test/{BASELINE}" if other == BIASES else f"test/{other}/"
                figures |= {prefix + name: value for name, value in of_other.items()}
        elif group not in ("format", "settings"):
            logged = prefixes.get(group, group)
            figures |= {name if name == EPOCHS else f"{logged}/{name}": value for name, value in values.items()}
    return figures
