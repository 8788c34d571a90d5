"""What cflightning adds to a Lightning checkpoint, and how one is read without a Trainer."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from cflightning.data.provenance import Provenance
from cflightning.data.vocabulary import Vocabulary
from cflightning.errors import CheckpointError
from cflightning.utils.files import replacing

Content = dict[str, Any]
"""The content of a checkpoint file, as torch returns it."""
KEY = "cflightning"
FORMAT = 1


@dataclass(frozen=True)
class CheckpointMetadata:
    """Metadata of a model: what rebuilds its network and what its figures rest on. Checkpoints store it in plain types.

    Attributes:
        task: module and name of the task class.
        objective: objective that the model was trained by; empty if the task has only one.
        engine: name of the engine that trained; empty if unknown.
        rating_range: lowest and highest rating; None if the model does not predict ratings.
        mean_rating: mean rating of the training part; likewise.
        train_rows: number of rows of the training part.
        ranking: complete settings of the ranking objective.
        ranking_trained: whether the ranking network of a multitask model is trained.
        data: table and split that the model was trained on.
        metrics: metrics at the time of saving.
    """

    task: str = ""
    objective: str = ""
    engine: str = ""
    rating_range: tuple[float, float] | None = None
    mean_rating: float | None = None
    train_rows: int | None = None
    ranking: dict[str, Any] = field(default_factory=dict)
    ranking_trained: bool = False
    data: Provenance | None = None
    metrics: dict[str, float] = field(default_factory=dict)


METADATA_TYPES: dict[str, tuple[type, ...]] = {
    "task": (str,), "objective": (str,), "engine": (str,), "rating_range": (list, tuple, NoneType),
    "mean_rating": (float, int, NoneType), "train_rows": (int, NoneType), "ranking": (dict,),
    "ranking_trained": (bool,), "metrics": (dict,),
}  # fmt: skip
"""Types of the metadata in a file, by field."""


def pack(vocabulary: Vocabulary, metadata: CheckpointMetadata) -> dict[str, Any]:
    """Return the value of the checkpoint's key `cflightning`: format, vocabulary and metadata."""
    return {"format": FORMAT, **vocabulary.state(), **asdict(metadata)}


def unpack(checkpoint: dict[str, Any], source: str = "checkpoint") -> tuple[Vocabulary, CheckpointMetadata]:
    """Return vocabulary and metadata of a loaded checkpoint.

    Args:
        checkpoint: content of the file.
        source: name of the file, for messages.

    Raises:
        CheckpointError: it was not written by cflightning, or by a later version, or it was edited.
    """
    packed = checkpoint.get(KEY)
    if not isinstance(packed, dict) or not isinstance(packed.get("format"), int):
        raise CheckpointError(
            f"{source}: must be a checkpoint of cflightning, but has no vocabulary; "
            "train with a RatingsDataModule, which brings one"
        )
    if not {"rating_range", "mean_rating", "users", "items", "titles"} <= set(packed):
        raise CheckpointError(f"{source}: lacks a part of its vocabulary or sizes; was it edited?")
    if not 1 <= packed["format"] <= FORMAT:
        raise CheckpointError(
            f"{source}: has checkpoint format {packed['format']}, this version reads up to {FORMAT}; "
            "upgrade cflightning"
        )
    values = {name: packed[name] for name in METADATA_TYPES if name in packed}
    for name, value in values.items():
        if not isinstance(value, METADATA_TYPES[name]):
            raise CheckpointError(f"{source}: {name} cannot be read, got {type(value).__name__}; was it edited?")
    if values["rating_range"] is not None:
        values["rating_range"] = tuple(values["rating_range"])
    data = Provenance.from_state(packed.get("data"))
    return Vocabulary.from_state(packed), CheckpointMetadata(**values, data=data)


def refuse_address(path: Path | str) -> None:
    """Raise a CheckpointError where a path is an address: what is fetched could be another file each time."""
    # pathlib leaves one slash of two.
    if "://" in str(path) or (re.match(r"[A-Za-z][\w+.-]+:/", str(path)) and not Path(path).exists()):
        raise CheckpointError(f"{str(path)[:100]}: must be a local file, but is an address; download it first")


def read(path: Path | str, mapped: bool = False) -> dict[str, Any]:
    """Return the content of a checkpoint file, on the CPU; plain types and tensors only, never code.

    Every checkpoint that the project reads is read here.

    Args:
        path: A local file.
        mapped: Whether tensors are mapped from the file instead of read.

    Raises:
        CheckpointError: An address, no such file, damaged, or it holds other objects.
    """
    refuse_address(path)
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: must be a checkpoint file, but there is none")
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # the reader of damaged files fails in many ways
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: cannot be read as a checkpoint ({reason[:200]})") from error
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise CheckpointError(f"{path}: must be a Lightning checkpoint, but holds something else")
    version = str(content.get("pytorch-lightning_version", ""))
    if (
        KEY in content and version[:1] in "01"
    ):  # Lightning would rewrite it first, by rules that nothing of ours has ever needed
        raise CheckpointError(f"{path}: must be of Lightning 2 or later, got version {version[:20] or 'unknown'}")
    return content


class FileCheckpointIO(TorchCheckpointIO):
    """Checkpoints straight to and from the file; Lightning's own makes two copies of the tables in memory each time.

    Args:
        remote: Address of the folder that the user chose for checkpoints, where it is no local one; nothing else is
            fetched.
    """

    def __init__(self, remote: str | None = None) -> None:
        self.remote = remote

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write beside the place, then move: readers see the old file or the new one."""
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with replacing(Path(path), "wb") as out:
            torch.save(checkpoint, out)

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = None) -> dict[str, Any]:
        """Read plain types and tensors, mapped into memory; never code, whatever `weights_only` says."""
        if self.remote and str(path).startswith(f"{self.remote.rstrip('/')}/") and not str(path).startswith("http"):
            content: dict[str, Any] = super().load_checkpoint(path, map_location, weights_only=True)
            return content
        return read(path, mapped=True)


def find(path: Path) -> Path:
    """The checkpoint that a path means: itself, or the best one of a run folder.

    Raises:
        CheckpointError: neither; names what is there.
    """
    refuse_address(path)
    if path.is_file():
        return path
    if not path.exists():
        raise CheckpointError(f"{path}: must be a run folder or a checkpoint, but does not exist")
    for name in ("best.ckpt", "last.ckpt"):
        if (path / "checkpoints" / name).is_file():
            return path / "checkpoints" / name
    runs = sorted(path.glob("*/checkpoints/*.ckpt"))
    hint = (
        f"name one of its runs, such as {runs[-1].parent.parent}" if runs else "train first: python -m cflightning fit"
    )
    raise CheckpointError(f"{path}: must hold checkpoints/best.ckpt, but has none; {hint}")
