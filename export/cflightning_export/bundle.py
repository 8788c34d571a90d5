"""Export of a checkpoint to a bundle (serve/BUNDLE.md), which is either complete and verified or not there."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import onnx
from tqdm import tqdm

from cflightning import __version__
from cflightning.checkpoint.format import CheckpointMetadata, locate_checkpoint
from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.vocabulary import Vocabulary
from cflightning.errors import ExportError
from cflightning.evaluation.run_metrics import read_metrics
from cflightning.tasks.loading import load_task
from cflightning_export.contents.item_metadata import write_catalogue, write_titles
from cflightning_export.contents.networks import BundleNetworks, bundle_networks
from cflightning_export.contents.score_reference import score_reference
from cflightning_export.contents.seen_items import seen_rows
from cflightning_export.contents.training_data import training_data, training_rows
from cflightning_export.fold_in.plan import fold_in_specs
from cflightning_export.fold_in.refit_users import refit_users_if_better
from cflightning_export.graphs.base import BundleSource
from cflightning_export.graphs.registry import build_graphs, verify_graphs
from cflightning_export.onnx_tools.external_data import SharedWeights
from cflightning_export.onnx_tools.quantization import Precision, Rounding, round_within, store_rounded
from cflightning_export.publish import atomic_folder, check_target, require_space
from cflightning_serve.bundle.manifest import FORMAT, describe_file, write_manifest
from cflightning_serve.bundle.strict_json import Json

log = logging.getLogger(__name__)


def export_bundle(
    source: Path | str,
    target: Path | str,
    *,
    overwrite: bool = False,
    with_history: bool | None = None,
    new_items: bool = False,
    refit_users: bool = False,
    precision: Precision = "fp32",
    max_rmse_change: float | None = None,
    min_overlap: float = 0.97,
) -> Path:
    """Turn a checkpoint into a bundle.

    Args:
        source: a run folder or a checkpoint.
        target: the folder to make.
        overwrite: whether an existing bundle is replaced; any other existing folder is never touched.
        with_history: which rows of the table the bundle holds; everyone who has the bundle can read them. None: the
            items of every row of every user, so that recommendations leave out seen items; nothing, with a warning, if
            the table cannot be found. True: also the ratings of the training rows, which explain scores. False: none.
        new_items: whether the bundle also folds in new items, from the users who rated them.
        refit_users: whether users are refitted to their training ratings, unless that raises the validation error.
        precision: precision of the tables: "fp32", "fp16" or "int8" with a scale for each row.
        max_rmse_change: largest change of the scores by rounding (`quantization.Change`), rating units; None for .001
            of the rating range, or .02 standard deviations of the scores of implicit feedback.
        min_overlap: smallest share of the top-10 recommendations that rounding must keep.

    Returns:
        The bundle's folder.

    Raises:
        CheckpointError: the source cannot be used.
        ExportError: the target exists, rows that an option needs cannot be found again, the graphs differ from the
            network, or rounding exceeds a limit; then nothing is left behind.
    """
    path, target = locate_checkpoint(Path(source)), Path(target).absolute()
    check_target(target, overwrite)
    log.info("reading %s", path)
    task = load_task(path)
    vocabulary = task.vocabulary
    assert vocabulary is not None
    if not len(vocabulary.users) or not len(vocabulary.items):
        raise ExportError(f"{path}: must know at least one user and one item")
    rows = seen = None
    if with_history is not False or refit_users:
        log.info("reading the table of the run")
    data = _find_data(path, vocabulary, task.metadata, with_history, refit_users)
    if data is not None:
        rating_weight = task.metadata.ranking.get("rating_weight", 0.0)
        rows = training_rows(data, vocabulary, rates=task.predicts_ratings, rating_weight=rating_weight)
        seen = None if with_history is False else seen_rows(data, vocabulary, rows)
    with atomic_folder(target, overwrite=overwrite) as scratch:
        networks, terms = bundle_networks(task), task.pop_svdpp_terms()
        measured = _run_metrics(path, task.metadata)
        metrics, comparison = _model_metrics(measured), _comparison(measured, task.metadata)
        # The terms of several ensemble members do not describe the average of their tables.
        svdpp_terms = terms[0] if len(terms) == 1 else None
        if refit_users and data is not None and rows is not None:
            metrics = refit_users_if_better(task, networks, data, rows, svdpp_terms, metrics)
        data = rows = None  # large
        by_name = {"score": networks.score, "recommend": networks.recommend}
        rounding = round_within(by_name, precision, max_rmse_change, min_overlap)
        fold_in = fold_in_specs(task, networks, vocabulary, svdpp_terms, with_new_items=new_items, rounding=rounding)
        del svdpp_terms, terms  # large as well
        bundle = BundleSource(networks, vocabulary, seen, bool(with_history), fold_in)
        write_bundle(scratch, bundle, metrics, rounding, comparison)
        log.info("checking the graphs against torch")
        verify_graphs(scratch, bundle)
    return target


def write_bundle(
    folder: Path,
    source: BundleSource,
    metrics: Mapping[str, float],
    rounding: Rounding | None = None,
    comparison: Mapping[str, Json] | None = None,
) -> None:
    """Write all files of a bundle.

    Args:
        folder: an empty folder.
        source: source of the graphs.
        metrics: metrics of the networks, for the manifest.
        rounding: rounding of the networks' tables; None for float32.
        comparison: other ranking models that were measured, for the manifest.

    Raises:
        OSError: the files cannot be written, or there is no space for them.
    """
    network, vocabulary, models = source.networks.score, source.vocabulary, dict[str, onnx.ModelProto]()
    log.info("writing the graphs")
    require_space(folder, _min_bytes(source.networks, rounding))
    with SharedWeights(folder / "weights.bin") as weights, tqdm(desc="Graphs", leave=False, disable=None) as bar:
        for name, model in build_graphs(source):
            if rounding is not None:
                store_rounded(model, rounding)
            weights.add(model)
            models[name] = model
            bar.update()
    for name, model in models.items():
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString())
    log.info("wrote %s", ", ".join(models))
    catalogue, titles = write_catalogue(folder, vocabulary), write_titles(folder, vocabulary)
    files = [*(f"{name}.onnx" for name in models), "weights.bin", catalogue, *([titles] if titles else [])]
    manifest: dict[str, Json] = {
        "format": FORMAT,
        "format_version": 1,
        "written_by": f"cflightning {__version__}",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": type(network).__name__,
        "dim": int(network.item_vectors().shape[1]),
        "ids": {"user": vocabulary.users.kind, "item": vocabulary.items.kind},
        "num_users": vocabulary.users.num_embeddings,
        "num_items": vocabulary.items.num_embeddings,
        "rating_range": list(network.rating_range) if network.rating_range else None,
        "metrics": metrics,
        "graphs": {name: f"{name}.onnx" for name in models},
        "catalogue": catalogue,
        "titles": titles,
        "reference": score_reference(folder, vocabulary, source.seen),
        "files": {name: describe_file(folder / name) for name in files},
    }
    if "choice" in source.networks.units.values():  # a reader of format 1 would take such scores for ratings
        manifest |= {"format_version": 2, "units": source.networks.units}
    if rounding is not None:
        manifest["precision"] = rounding.summary()
    if comparison:
        manifest["comparison"] = comparison
    write_manifest(folder, manifest)


def _find_data(
    path: Path, vocabulary: Vocabulary, metadata: CheckpointMetadata, with_history: bool | None, refit_users: bool
) -> RatingsDataModule | None:
    """Read the data of the run again if an option needs it, or if it can be found."""
    rows, provenance = metadata.train_rows, metadata.data
    for flag, needed in (("--with-history", with_history), ("--refit-users", refit_users)):
        if needed:
            return training_data(path, vocabulary, rows, flag, provenance=provenance)
    if with_history is False:
        return None
    try:
        return training_data(path, vocabulary, rows, "seen items", "export with --without-history", provenance)
    except ExportError as error:
        log.warning("recommendations will include seen items, since the bundle gets none: %s", error)
        return None


def _run_metrics(path: Path, metadata: CheckpointMetadata) -> dict[str, float]:
    """Return the finite validation and test metrics of the run, or of the checkpoint if it lies in no run."""
    report = path.parent.parent / "metrics.json"
    metrics = metadata.metrics
    if path.name == "best.ckpt" and report.is_file():
        try:
            metrics = read_metrics(report)
        except (OSError, ValueError) as error:
            log.warning("%s: cannot be read (%s); its metrics are left out", report, error)
    selected = {name: float(value) for name, value in metrics.items() if name.startswith(("val/", "test/"))}
    return {name: value for name, value in selected.items() if math.isfinite(value)}  # JSON has no NaN


def _model_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics of the exported model, without those of ranking baselines (`test/popularity/ndcg@10`, ...).

    Those of the bias-only baseline (`test/baseline_rmse`) stay, as the scale of the model's own.
    """
    return {name: value for name, value in metrics.items() if name.count("/") == 1}


def _comparison(metrics: Mapping[str, float], metadata: CheckpointMetadata) -> dict[str, Json]:
    """Return the key `comparison` of the manifest; empty if no other ranking model was measured."""
    comparison: dict[str, Json] = {}
    if metadata.ranking_trials:
        trials = {name: value for name, value in metadata.ranking_trials.items() if math.isfinite(value)}
        comparison |= {"validation": trials, "chosen": metadata.ranking_chosen}
    baselines: dict[str, dict[str, float]] = {}
    for name, value in metrics.items():
        if match := re.fullmatch("test/([^/]+)/([^/]+)", name):
            baselines.setdefault(match[1], {})[match[2]] = value
    return comparison | ({"test": baselines} if baselines else {})


def _min_bytes(networks: BundleNetworks, rounding: Rounding | None) -> int:
    """Return the bytes that the tables of the networks take at least, each counted once."""
    used = (networks.score, networks.recommend)
    tables = (table for network in used for table in (*network.parameters(), *network.buffers()))
    numbers = sum({table.data_ptr(): table.numel() for table in tables}.values())
    return numbers * (4 if rounding is None else 2 if rounding.precision == "fp16" else 1)
