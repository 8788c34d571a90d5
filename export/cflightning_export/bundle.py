"""Writing a bundle (serve/BUNDLE.md): complete and checked, or not there."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cflightning import __version__
from cflightning import checkpoint as checkpoints
from cflightning.data.vocabulary import Vocabulary
from cflightning.errors import ExportError
from cflightning_export.answering import Answering, answering
from cflightning_export.graphs import recommend_graph, score_graph, similar_graph
from cflightning_export.reference import reference
from cflightning_export.verify import verify
from cflightning_export.weights import share_weights

log = logging.getLogger(__name__)

FORMAT = "cflightning-bundle"
GRAPHS = {"score": score_graph, "recommend": recommend_graph, "similar": similar_graph}


def export_bundle(source: Path | str, target: Path | str, *, overwrite: bool = False) -> Path:
    """Turn a checkpoint into a bundle.

    Args:
        source: a run folder or a checkpoint.
        target: the folder to make.
        overwrite: whether an existing bundle is replaced; any other existing folder is never touched.

    Returns:
        The bundle's folder.

    Raises:
        CheckpointError: the source cannot be used.
        ExportError: the target exists, or the graphs differ from the network; then nothing is left behind.
    """
    path, target = checkpoints.find(Path(source)), Path(target).absolute()
    _check_target(target, overwrite)
    task = checkpoints.load_task(path)
    vocabulary = task.vocabulary
    assert vocabulary is not None
    if not len(vocabulary.users) or not len(vocabulary.items):
        raise ExportError(f"{path}: must know at least one user and one item")
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        scratch.chmod(0o755)  # mkdtemp makes it private
        parts = answering(task)
        _write(scratch, parts, vocabulary, _metrics(path, task.facts))
        log.info("checking the graphs against torch")
        verify(scratch, parts.networks, vocabulary)
        _move(scratch, target)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return target


def _move(scratch: Path, target: Path) -> None:
    """Put the new bundle in place; an old one goes only when the new one is there."""
    old = scratch.with_name(f"{scratch.name}.old")
    if target.exists():
        os.replace(target, old)
    os.replace(scratch, target)
    shutil.rmtree(old, ignore_errors=True)


def _check_target(target: Path, overwrite: bool) -> None:
    if target.is_symlink():
        raise ExportError(f"{target}: is a link; name the folder itself")
    if not target.exists():
        return
    if target == Path.cwd():
        raise ExportError(f"{target}: is the current folder; name one to be made in it")
    if target.is_dir() and not any(target.iterdir()):
        target.rmdir()
        return
    try:
        ours = json.loads((target / "manifest.json").read_text(encoding="utf-8")).get("format") == FORMAT
    except (OSError, ValueError, AttributeError):
        ours = False
    if not ours:
        raise ExportError(f"{target}: exists and is no bundle; choose another folder")
    if not overwrite:
        raise ExportError(f"{target}: exists; choose another folder, or replace it with --overwrite")


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


def _write(folder: Path, parts: Answering, vocabulary: Vocabulary, metrics: dict[str, float]) -> None:
    network, models = parts.networks["score"], {}
    for name, build in GRAPHS.items():
        log.info("writing %s.onnx", name)
        models[f"{name}.onnx"] = build(parts.networks[name], vocabulary)
    share_weights(models, folder / "weights.bin")
    for name, model in models.items():
        (folder / name).write_bytes(model.SerializeToString())
    names = [*models, "weights.bin"]
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
        "graphs": {name: f"{name}.onnx" for name in GRAPHS},
        "titles": "titles.json" if vocabulary.titles else None,
        "reference": reference(folder, vocabulary),
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
