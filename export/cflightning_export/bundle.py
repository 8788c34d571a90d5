"""Writing a bundle (serve/BUNDLE.md): complete and checked, or not there."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import onnx
from tqdm import tqdm

from cflightning import __version__
from cflightning.checkpoint.format import find
from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.provenance import Provenance
from cflightning.data.vocabulary import Vocabulary
from cflightning.errors import ExportError
from cflightning.evaluation.run_metrics import read_metrics
from cflightning.tasks.loading import load_task
from cflightning.tasks.ranking import RATING
from cflightning_export.contents.item_metadata import write_catalogue, write_titles
from cflightning_export.contents.roles import Answering, answering
from cflightning_export.contents.score_reference import reference
from cflightning_export.contents.seen_items import SeenRows, seen_rows
from cflightning_export.contents.training_data import training_data, training_rows
from cflightning_export.fold_in.refit_users import resolve_if_better
from cflightning_export.graphs.base import score_graph, similar_graph
from cflightning_export.graphs.catalogue import list_graphs
from cflightning_export.graphs.fold_in_plan import NewRows, find_new_rows
from cflightning_export.graphs.fold_in_plan import graphs as new_row_graphs
from cflightning_export.graphs.history import history_graph, seen_graph
from cflightning_export.onnx_tools.external_data import SharedWeights
from cflightning_export.onnx_tools.quantization import Precision, Rounding, round_within, store
from cflightning_export.publish import FORMAT, check_target, placed, require_space
from cflightning_export.verify.base import verify
from cflightning_export.verify.catalogue import verify_lists
from cflightning_export.verify.fold_in import verify_new_rows
from cflightning_export.verify.seen_items import verify_seen

log = logging.getLogger(__name__)

GRAPHS = {"score": score_graph, "similar": similar_graph}


def export_bundle(
    source: Path | str,
    target: Path | str,
    *,
    overwrite: bool = False,
    with_history: bool | None = None,
    new_items: bool = False,
    resolve: bool = False,
    precision: Precision = "fp32",
    max_rmse_change: float | None = None,
    min_overlap: float = 0.97,
) -> Path:
    """Turn a checkpoint into a bundle.

    Args:
        source: a run folder or a checkpoint.
        target: the folder to make.
        overwrite: whether an existing bundle is replaced; any other existing folder is never touched.
        with_history: which rows of the table travel in the bundle, where everyone who has it can read them. None: the
            items of every row of every user, so that lists leave out what users know; where the table cannot be found,
            none, with a warning. True: also the ratings of the training rows, which explain scores. False: none.
        precision: of the tables: "fp32", "fp16" or "int8" with a scale for each row.
        max_rmse_change: the most that rounding may change scores (`precision.Change`), rating units; None for .001 of
            the rating range, or of choices .02 standard deviations.
        min_overlap: the share of top-10 lists that rounding must keep.
        new_items: whether the bundle also takes items that were not there in training, by the users who rated them.
        resolve: whether users are solved once more from their training ratings (`resolving`), unless that predicts the
            validation part worse.

    Returns:
        The bundle's folder.

    Raises:
        CheckpointError: the source cannot be used.
        ExportError: the target exists, rows that an option needs cannot be found again, the graphs differ from the
            network, or rounding passes a limit; then nothing is left behind.
    """
    path, target = find(Path(source)), Path(target).absolute()
    check_target(target, overwrite)
    log.info("reading %s", path)
    task = load_task(path)
    vocabulary = task.vocabulary
    assert vocabulary is not None
    if not len(vocabulary.users) or not len(vocabulary.items):
        raise ExportError(f"{path}: must know at least one user and one item")
    rows = seen = None
    if with_history is not False or resolve:
        log.info("reading the table of the run")
    data = _find_data(path, vocabulary, task.facts, with_history, resolve)
    if data is not None:
        rows = training_rows(data, vocabulary, rates=task.facts.get("objective", "mse") in RATING)
        seen = None if with_history is False else seen_rows(data, vocabulary, rows)
    with placed(target, overwrite=overwrite) as scratch:
        parts, metrics, kept = answering(task), _metrics(path, task.facts), task.take_priors()
        bags = kept[0] if len(kept) == 1 else None  # those of several members say nothing of their mean's tables
        if resolve and data is not None and rows is not None:
            metrics = resolve_if_better(task, parts, data, rows, bags, metrics)
        data = rows = None  # large, and needed no more
        rounding = round_within(parts.networks, precision, max_rmse_change, min_overlap)
        new = find_new_rows(task, parts, vocabulary, bags, new_items=new_items, rounding=rounding)
        del bags, kept  # large, as well
        made = _graphs(parts, vocabulary, seen, new, rated=bool(with_history))
        _write(scratch, parts, vocabulary, metrics, made, rounding, seen)
        log.info("checking the graphs against torch")
        verify(scratch, parts.networks, vocabulary)
        verify_lists(scratch, parts.networks["recommend"], vocabulary)
        if seen is not None:
            verify_seen(scratch, vocabulary, seen, rated=bool(with_history))
        if new is not None:
            verify_new_rows(scratch, new)
    return target


def _find_data(
    path: Path, vocabulary: Vocabulary, facts: Mapping[str, Any], with_history: bool | None, resolve: bool
) -> RatingsDataModule | None:
    """The run's data, where an option asks for it or it can be found."""
    rows, kept = facts.get("train_rows"), Provenance.from_state(facts.get("data"))
    for flag, asked in (("--with-history", with_history), ("--resolve", resolve)):
        if asked:
            return training_data(path, vocabulary, rows, flag, kept=kept)
    if with_history is False:
        return None
    try:
        return training_data(path, vocabulary, rows, "seen items", "export --without-history if that is meant", kept)
    except ExportError as error:
        log.warning("the bundle will list what users know, for it gets no seen items: %s", error)
        return None


def _metrics(path: Path, facts: dict[str, Any]) -> dict[str, float]:
    """The figures of the run folder that the checkpoint lies in, else those that it was saved with.

    Those of the simple rankers beside it (`test/popularity/ndcg@10`, ...) stay there: they are of other models.
    """
    report = path.parent.parent / "metrics.json"
    figures = facts.get("metrics", {})
    if path.name == "best.ckpt" and report.is_file():
        try:
            figures = read_metrics(report)
        except (OSError, ValueError) as error:
            log.warning("%s: cannot be read (%s); its figures are left out", report, error)
    kept = {name: float(value) for name, value in figures.items() if re.fullmatch("(val|test)/[^/]+", name)}
    return {name: value for name, value in kept.items() if math.isfinite(value)}  # JSON has no NaN


def _graphs(
    parts: Answering, vocabulary: Vocabulary, seen: SeenRows | None, new: NewRows | None, *, rated: bool
) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Questions and graphs, each made when it is asked for."""
    for name, build in GRAPHS.items():
        yield name, build(parts.networks[name], vocabulary)
    yield from list_graphs(parts.networks["recommend"], vocabulary)
    if seen is not None:
        yield "seen", seen_graph(seen, vocabulary)
        if rated:
            yield "history", history_graph(seen, vocabulary)
    if new is not None:
        yield from new_row_graphs(new, vocabulary)


def _least_bytes(parts: Answering, rounding: Rounding | None) -> int:
    """What the networks' tables take at least, each once."""
    every = (table for network in parts.networks.values() for table in network.parameters())
    numbers = sum({table.data_ptr(): table.numel() for table in every}.values())
    return numbers * (4 if rounding is None else 2 if rounding.precision == "fp16" else 1)


def _write(
    folder: Path,
    parts: Answering,
    vocabulary: Vocabulary,
    metrics: dict[str, float],
    graphs: Iterable[tuple[str, onnx.ModelProto]],
    rounding: Rounding | None,
    seen: SeenRows | None = None,
) -> None:
    network, models = parts.networks["score"], {}
    log.info("writing the graphs")
    require_space(folder, _least_bytes(parts, rounding))
    with SharedWeights(folder / "weights.bin") as weights, tqdm(desc="Graphs", leave=False, disable=None) as bar:
        for name, model in graphs:
            if rounding is not None:
                store([model], rounding)
            weights.add(model)
            models[name] = model
            bar.update()
    for name, model in models.items():
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString())
    log.info("wrote %s", ", ".join(models))
    catalogue, titles = write_catalogue(folder, vocabulary), write_titles(folder, vocabulary)
    names = [*(f"{name}.onnx" for name in models), "weights.bin", catalogue, *([titles] if titles else [])]
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "format_version": 1,
        "written_by": f"cflightning {__version__}",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": type(network).__name__,
        "dim": int(network.item_vectors().shape[1]),
        "ids": {"user": vocabulary.users.kind, "item": vocabulary.items.kind},
        "num_users": vocabulary.users.num_rows,
        "num_items": vocabulary.items.num_rows,
        "rating_range": list(network.rating_range) if network.rating_range else None,
        "metrics": metrics,
        "graphs": {name: f"{name}.onnx" for name in models},
        "catalogue": catalogue,
        "titles": titles,
        "reference": reference(folder, vocabulary, seen),
        "files": {name: _describe(folder / name) for name in names},
    }
    if "choice" in parts.units.values():  # a reader of format 1 would take them for ratings
        manifest |= {"format_version": 2, "units": parts.units}
    if rounding is not None:
        manifest["precision"] = rounding.facts()
    manifest["sha256"] = manifest_digest(manifest)
    text = json.dumps(manifest, ensure_ascii=False, indent=2, allow_nan=False)
    (folder / "manifest.json").write_text(text + "\n", encoding="utf-8")


def manifest_digest(manifest: dict[str, Any]) -> str:
    """SHA-256 of the manifest's canonical form, without its own digest."""
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(
        json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    ).hexdigest()


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
