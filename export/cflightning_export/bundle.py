"""Writing a bundle (serve/BUNDLE.md): complete and checked, or not there."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cflightning import __version__
from cflightning import checkpoint as checkpoints
from cflightning.data.vocabulary import Vocabulary
from cflightning.errors import ExportError
from cflightning_export.answering import Answering, answering
from cflightning_export.catalogue import write_catalogue
from cflightning_export.graphs import recommend_graph, score_graph, similar_graph
from cflightning_export.history_graph import history_graph
from cflightning_export.list_graphs import list_graphs
from cflightning_export.placing import FORMAT, check_target, placed
from cflightning_export.training_rows import TrainingRows, training_rows
from cflightning_export.verify import verify
from cflightning_export.verify_lists import verify_lists
from cflightning_export.weights import share_weights

log = logging.getLogger(__name__)

GRAPHS = {"score": score_graph, "recommend": recommend_graph, "similar": similar_graph}


def export_bundle(
    source: Path | str, target: Path | str, *, overwrite: bool = False, with_history: bool = False
) -> Path:
    """Turn a checkpoint into a bundle.

    Args:
        source: a run folder or a checkpoint.
        target: the folder to make.
        overwrite: whether an existing bundle is replaced; any other existing folder is never touched.
        with_history: whether the training rows travel in the bundle, which everyone who has it can then read.

    Returns:
        The bundle's folder.

    Raises:
        CheckpointError: the source cannot be used.
        ExportError: the target exists, the training rows cannot be found again, or the graphs differ from the network;
            then nothing is left behind.
    """
    path, target = checkpoints.find(Path(source)), Path(target).absolute()
    check_target(target, overwrite)
    task = checkpoints.load_task(path)
    vocabulary = task.vocabulary
    assert vocabulary is not None
    if not len(vocabulary.users) or not len(vocabulary.items):
        raise ExportError(f"{path}: must know at least one user and one item")
    rows = training_rows(path, vocabulary, task.facts.get("train_rows")) if with_history else None
    with placed(target) as scratch:
        parts = answering(task)
        _write(scratch, parts, vocabulary, _metrics(path, task.facts), rows)
        log.info("checking the graphs against torch")
        verify(scratch, parts.networks, vocabulary)
        verify_lists(scratch, parts.networks["recommend"], vocabulary, rows)
    return target


def _metrics(path: Path, facts: dict[str, Any]) -> dict[str, float]:
    """The figures of the run folder that the checkpoint lies in, else those that it was saved with."""
    report = path.parent.parent / "metrics.json"
    figures = facts.get("metrics", {})
    if path.name == "best.ckpt" and report.is_file():
        try:
            figures = json.loads(report.read_text(encoding="utf-8"))
        except ValueError as error:
            log.warning("%s: is not JSON (%s); its figures are left out", report, error)
    kept = {name: float(value) for name, value in figures.items() if name.split("/")[0] in {"val", "test"}}
    return {name: value for name, value in kept.items() if math.isfinite(value)}  # JSON has no NaN


def _write(
    folder: Path, parts: Answering, vocabulary: Vocabulary, metrics: dict[str, float], rows: TrainingRows | None
) -> None:
    network, models = parts.networks["score"], {}
    for name, build in GRAPHS.items():
        log.info("writing %s.onnx", name)
        models[f"{name}.onnx"] = build(parts.networks[name], vocabulary)
    log.info("writing the graphs for lists")
    lists = list_graphs(parts.networks["recommend"], vocabulary)
    if rows is not None:
        lists["history"] = history_graph(rows, vocabulary)
    models |= {f"{name}.onnx": model for name, model in lists.items()}
    share_weights(models, folder / "weights.bin")
    for name, model in models.items():
        (folder / name).write_bytes(model.SerializeToString())
    write_catalogue(folder / "catalogue.json", vocabulary)
    names = [*models, "weights.bin", "catalogue.json"]
    if vocabulary.titles:
        titles = {str(key): title for key, title in vocabulary.titles.items()}
        (folder / "titles.json").write_text(json.dumps(titles, ensure_ascii=False, indent=0), encoding="utf-8")
        names.append("titles.json")
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
        "graphs": {name: f"{name}.onnx" for name in (*GRAPHS, *lists)},
        "catalogue": "catalogue.json",
        "titles": "titles.json" if vocabulary.titles else None,
        "files": {name: _describe(folder / name) for name in names},
    }
    if "choice" in parts.units.values():  # a reader of format 1 would take them for ratings
        manifest |= {"format_version": 2, "units": parts.units}
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
