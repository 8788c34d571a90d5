"""``info``: verify a bundle and show its contents and metrics."""

import argparse
import re
from collections.abc import Mapping
from dataclasses import asdict

from cflightning_serve.bundle.manifest import Manifest
from cflightning_serve.cli.command import Command, Output, add_json_option, parse_trust
from cflightning_serve.cli.format import format_table

METRICS = {
    "rmse": "root mean squared error of predicted ratings; lower is better",
    "mae": "mean absolute error of predicted ratings; lower is better",
    "baseline_rmse": "RMSE of the bias-only model, for comparison",
    "ndcg": "normalised discounted cumulative gain of the relevant items; 1 is best",
    "recall": "share of a user's relevant items that is recommended",
    "precision": "share of the recommended items that is relevant",
    "hr": "hit rate: share of users with a relevant item among the recommended",
    "mrr": "mean over users of 1 / rank of the first relevant item",
    "coverage": "share of the catalogue that is recommended to any user",
    "novelty": "self-information of the recommended items; rarer items have more",
}
"""Metric -> its description; the other metrics of a manifest are shown with ``--json`` only."""
NDCG = "ndcg@10"
"""Metric by which ranking models are compared."""
BASELINES = {
    "popularity": "popularity",
    "item-knn": "item neighbours",
    "ease": "EASE",
    "ratings": "predicted ratings",
}
"""Baseline of recommendations -> its description."""
OPTIONAL_GRAPHS = {
    "filtered": "filters of the catalogue",
    "fold_in": "new users",
    "fold_in_item": "new items",
    "explain": "explanations",
}
"""Optional graph -> the requests that it supports."""
CONTAINED_ROWS = {
    "none": "none: recommendations include seen items, unless each request excludes them",
    "items": "the seen items of every user, which recommendations leave out; readable by everybody with the bundle",
    "items and ratings": "the seen items of every user, which recommendations leave out, and their ratings; readable "
    "by everybody with the bundle",
    "training items and ratings": "the items and ratings of every user's training rows; recommendations leave these "
    "items out; readable by everybody with the bundle",
}
"""Kind of rows of the ratings table that a bundle contains -> its description."""
UNITS = {
    "rating": "predicted ratings",
    "choice": "without a unit: only the order of the scores for one user has a meaning",
}
"""Unit of scores -> its description."""
ID_TYPES = {"int64": "integers", "string": "strings"}
"""Id type -> its name."""


def run(options: argparse.Namespace) -> Output:
    """Verify the bundle and describe it.

    Raises:
        BundleError: the bundle is invalid or damaged.
        InputError: an option is invalid.
    """
    manifest = Manifest.read(options.bundle, parse_trust(options))
    manifest.verify(digests=options.verify)
    limits = manifest.rating_range
    rows = _contained_rows(manifest)
    sizes = sorted(((entry.bytes, name) for name, entry in manifest.files.items()), reverse=True)
    largest = f", of which {sizes[0][1]} {sizes[0][0] / 1e6:,.1f} MB" if sizes else ""
    titles = "with" if manifest.titles is not None else "without"
    supported = ", ".join(text for graph, text in OPTIONAL_GRAPHS.items() if graph in manifest.graphs)
    description = [
        ("written", f"{manifest.created} by {manifest.written_by}, format {manifest.format_version}"),
        ("model", f"{manifest.model}, {manifest.dim} factors"),
        ("digest", manifest.file_sha256),
        ("files", f"{len(sizes)}, {sum(size for size, _ in sizes) / 1e6:,.1f} MB{largest}"),
        ("users", f"{manifest.num_users - 1:,} known, ids are {ID_TYPES[manifest.user_ids]}"),
        ("items", f"{manifest.num_items - 1:,} known, ids are {ID_TYPES[manifest.item_ids]}, {titles} titles"),
        ("rows", CONTAINED_ROWS[rows]),
        ("rating range", "none" if limits is None else f"{limits[0]:g} to {limits[1]:g}"),
        *((graph, UNITS[unit]) for graph, unit in manifest.units.items()),
        ("supports", supported or "no optional requests"),
    ]
    text = format_table(("bundle", str(manifest.folder)), description)
    metrics, num_others = _metric_rows(manifest.metrics)
    if metrics:
        text += "\n\n" + format_table(("metric", "test", "validation", "meaning"), metrics)
    if num_others:
        text += f"\n{num_others} more metric{'s' if num_others > 1 else ''}: --json"
    if models := _compared_models(manifest):
        text += "\n\n" + format_table(("ranking model", "test nDCG@10", "validation nDCG@10"), models)
    document = {
        "format_version": manifest.format_version,
        "written_by": manifest.written_by,
        "created": manifest.created,
        "model": manifest.model,
        "dim": manifest.dim,
        "known_users": manifest.num_users - 1,
        "known_items": manifest.num_items - 1,
        "user_ids": manifest.user_ids,
        "item_ids": manifest.item_ids,
        "rating_range": None if limits is None else list(limits),
        "units": dict(manifest.units),
        "titles": manifest.titles is not None,
        "rows": rows,
        "digest": manifest.file_sha256,
        "metrics": dict(manifest.metrics),
        "comparison": asdict(manifest.comparison),
        "files": {name: entry.bytes for name, entry in manifest.files.items()},
    }
    return Output(text, document)


def _contained_rows(manifest: Manifest) -> str:
    """Return the kind of rows that the bundle contains, a key of ``CONTAINED_ROWS``."""
    has_ratings = "history" in manifest.graphs
    if "seen" in manifest.graphs:
        return "items and ratings" if has_ratings else "items"
    return "training items and ratings" if has_ratings else "none"


def _metric_rows(metrics: Mapping[str, float]) -> tuple[list[tuple[str, str | None, str | None, str]], int]:
    """Return the rows of the table, with top-k metrics at the smallest k, and the number of other metrics."""
    names = {re.sub("^(test|val)/", "", name) for name in metrics}
    rows, num_shown = [], 0
    for metric, meaning in METRICS.items():
        cutoffs = [int(name.partition("@")[2]) for name in names if re.fullmatch(rf"{metric}@[0-9]{{1,9}}", name)]
        name = f"{metric}@{min(cutoffs)}" if cutoffs else metric
        test, val = (_format_metric(metrics, f"{part}/{name}") for part in ("test", "val"))
        if test or val:
            rows.append((name, test, val, meaning))
            has_interval = {f"test/{name}_low", f"test/{name}_high"} <= metrics.keys()
            num_shown += bool(test) + bool(val) + 2 * has_interval
    return rows, len(metrics) - num_shown


def _compared_models(manifest: Manifest) -> list[tuple[str, str | None, str | None]]:
    """Return description and nDCG@10 of the bundle's ranking model, the trained ones and the baselines, if any."""
    comparison = manifest.comparison
    validation = {name: f"{value:.4g}" for name, value in comparison.validation.items()}
    chosen = validation.pop(comparison.chosen, None)
    baselines = {name: metrics[NDCG] for name, metrics in comparison.test.items() if NDCG in metrics}
    if not validation and not baselines:
        return []
    name = "this bundle" + (f": {comparison.chosen}" if comparison.chosen else "")
    return [
        (name, _format_metric(manifest.metrics, f"test/{NDCG}"), chosen),
        *((f"trained: {name}", None, value) for name, value in validation.items()),
        *((f"baseline: {BASELINES.get(name, name)}", f"{value:.4g}", None) for name, value in baselines.items()),
    ]


def _format_metric(metrics: Mapping[str, float], name: str) -> str | None:
    """Format a metric, with its 95 % interval if it has one."""
    if name not in metrics:
        return None
    low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
    interval = "" if low is None or high is None else f" [{low:.4g}, {high:.4g}]"
    return f"{metrics[name]:.4g}{interval}"


COMMAND = Command("info", "verify a bundle and show its contents and metrics", "BUNDLE", add_json_option, run)
