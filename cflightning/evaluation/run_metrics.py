"""The format of `metrics.json`: metrics in groups, and the settings of the run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

FORMAT = 2
GROUPS = {"test": "test", "val": "validation", "train": "training", "seconds": "seconds"}
"""Prefix of a logged metric -> its group in the file."""
BASELINE, BIASES, EPOCHS = "baseline_", "biases", "epochs"
Groups = dict[str, dict[str, object]]


def group_metrics(metrics: Mapping[str, float], settings: Mapping[str, object]) -> dict[str, object]:
    """Return the content of `metrics.json`.

    Args:
        metrics: Logged name (`test/rmse`, `val/ndcg@10`, `test/popularity/hr@10`, `seconds/train`) -> value.
        settings: Settings of the run, as plain data.

    Returns:
        `format`; `settings`; `test`, `validation` and `training` with the metrics of the model; `baselines` with those
        of the baselines on the same test rows, by name (`biases`: user and item biases alone); `seconds` by phase.
    """
    groups: Groups = {name: {} for name in ("test", "baselines", "validation", "training", "seconds")}
    baselines: dict[str, dict[str, float]] = {}
    for name, value in sorted(metrics.items()):
        prefix, _, metric = name.partition("/")
        baseline, _, of_baseline = metric.rpartition("/")
        if name == EPOCHS:
            groups["training"][name] = value
        elif prefix == "test" and metric.startswith(BASELINE):
            baselines.setdefault(BIASES, {})[metric.removeprefix(BASELINE)] = value
        elif prefix == "test" and baseline:
            baselines.setdefault(baseline, {})[of_baseline] = value
        else:
            groups.setdefault(GROUPS.get(prefix, prefix), {})[metric] = value
    groups["baselines"] |= baselines
    return {"format": FORMAT, "settings": dict(settings)} | {name: group for name, group in groups.items() if group}


def read_metrics(path: Path) -> dict[str, float]:
    """Return the metrics of a `metrics.json` by their logged names.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is not JSON, or not of this format.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"must be metrics of format {FORMAT}")
    metrics: dict[str, float] = {}
    prefixes = {group: prefix for prefix, group in GROUPS.items()}
    for group, values in content.items():
        if group == "baselines":
            for baseline, of_baseline in values.items():
                prefix = f"test/{BASELINE}" if baseline == BIASES else f"test/{baseline}/"
                metrics |= {prefix + name: value for name, value in of_baseline.items()}
        elif group not in ("format", "settings"):
            logged = prefixes.get(group, group)
            metrics |= {name if name == EPOCHS else f"{logged}/{name}": value for name, value in values.items()}
    return metrics
