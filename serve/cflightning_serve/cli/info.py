"""The command line's answer about a bundle itself: what it holds, what it answers, how good it was in training."""

import re
from collections.abc import Mapping
from typing import Any

from cflightning_serve.bundle.manifest import Manifest
from cflightning_serve.cli.commands import Answer
from cflightning_serve.cli.format import table

FIGURES = {
    "rmse": "root mean squared error of predicted ratings; lower is better",
    "mae": "mean absolute error of predicted ratings; lower is better",
    "baseline_rmse": "the RMSE of user and item means alone, for comparison",
    "ndcg": "held-out items in the list, more the nearer to its top; 1 is best",
    "recall": "share of a user's held-out items that the list holds",
    "precision": "share of the list that is held-out items",
    "hr": "share of users whose list holds a held-out item",
    "mrr": "1 / place of the first held-out item, mean over users",
    "coverage": "share of the catalogue that is in anybody's list",
    "novelty": "how rare the listed items are; higher is rarer",
}
"""Measure -> what it says; the other figures of a manifest are shown as JSON alone."""
MORE = {
    "filtered": "parts of the catalogue",
    "fold_in": "new users",
    "fold_in_item": "new items",
    "explain": "reasons",
}
"""Graph that not every bundle has -> what it answers."""
ROWS = {
    "none": "none of the table: lists hold what a user knows, unless each question names it",
    "items": "every user's items: lists leave them out, and whoever has the bundle can read them",
    "items and ratings": "every user's items and ratings: lists leave the items out, and whoever has the bundle can "
    "read both",
    "training items and ratings": "every user's items and ratings of the training part: lists leave these items out, "
    "and whoever has the bundle can read both",
}


def info(manifest: Manifest) -> Answer:
    """Say what a bundle holds."""
    low_high = manifest.rating_range
    facts: dict[str, Any] = {
        "format_version": manifest.format_version,
        "written_by": manifest.written_by,
        "created": manifest.created,
        "model": manifest.model,
        "dim": manifest.dim,
        "known_users": manifest.num_users - 1,
        "known_items": manifest.num_items - 1,
        "user_ids": manifest.user_ids,
        "item_ids": manifest.item_ids,
        "rating_range": None if low_high is None else list(low_high),
        "units": dict(manifest.units),
        "titles": manifest.titles is not None,
        "rows": _rows(manifest),
        "digest": manifest.file_sha256,
        "metrics": dict(manifest.metrics),
        "files": {name: entry.bytes for name, entry in manifest.files.items()},
    }
    kinds = {"int64": "integers", "string": "strings"}
    sizes = sorted(facts["files"].items(), key=lambda file: -file[1])
    about = [
        ("written", f"{manifest.created} by {manifest.written_by}, format {manifest.format_version}"),
        ("model", f"{manifest.model}, {manifest.dim} factors"),
        ("digest", manifest.file_sha256),
        ("files", f"{len(sizes)}, {sum(size for _, size in sizes) / 1e6:,.1f} MB"
                  + (f", of which {sizes[0][0]} {sizes[0][1] / 1e6:,.1f} MB" if sizes else "")),
        ("users", f"{manifest.num_users - 1:,} known, ids are {kinds[manifest.user_ids]}"),
        ("items", f"{manifest.num_items - 1:,} known, ids are {kinds[manifest.item_ids]}, "
                  f"{'with' if facts['titles'] else 'without'} titles"),
        ("rows", ROWS[facts["rows"]]),
        ("rating range", "none" if low_high is None else f"{low_high[0]:g} to {low_high[1]:g}"),
        *((question, _in_words(manifest, question)) for question in manifest.units),
        ("answers also", ", ".join(text for graph, text in MORE.items() if graph in manifest.graphs) or "nothing"),
    ]  # fmt: skip
    text = table(("bundle", str(manifest.folder)), about)
    figures, left = _figures(manifest.metrics)
    if figures:
        text += "\n\n" + table(("in training", "test", "validation", "what it says"), figures)
    if left:
        text += f"\n{left} more figure{'s' if left > 1 else ''}: --json"
    return Answer(text, facts)


def _rows(manifest: Manifest) -> str:
    """Return the kind of rows of the table that the bundle holds: a key of `ROWS`."""
    rated = "history" in manifest.graphs
    if "seen" in manifest.graphs:
        return "items and ratings" if rated else "items"
    return "training items and ratings" if rated else "none"


def _in_words(manifest: Manifest, question: str) -> str:
    return {
        "rating": "predicted ratings",
        "choice": "choices: only the order of a user's scores means something",
    }[manifest.units[question]]


def _figures(metrics: Mapping[str, float]) -> tuple[list[tuple[str, str | None, str | None, str]], int]:
    """Rows of the table: each measure, of lists at their shortest; and how many figures are not among them."""
    names = {re.sub("^(test|val)/", "", name) for name in metrics}
    rows, shown = [], 0
    for measure, says in FIGURES.items():
        lengths = sorted(
            int(name.partition("@")[2]) for name in names if re.fullmatch(rf"{measure}@[0-9]{{1,9}}", name)
        )
        name = f"{measure}@{lengths[0]}" if lengths else measure
        test, val = (_shown(metrics, f"{part}/{name}") for part in ("test", "val"))
        if test or val:
            rows.append((name, test, val, says))
            interval = {f"test/{name}_low", f"test/{name}_high"} & metrics.keys()
            shown += bool(test) + bool(val) + (2 if len(interval) == 2 else 0)
    return rows, len(metrics) - shown


def _shown(metrics: Mapping[str, float], name: str) -> str | None:
    """A figure, with its 95 % interval where that is known."""
    if name not in metrics:
        return None
    low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
    interval = "" if low is None or high is None else f" [{low:.4g}, {high:.4g}]"
    return f"{metrics[name]:.4g}{interval}"
