"""The format of a checkpoint: Lightning's own file plus one key, read without a Trainer."""

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
from cflightning.utils.files import atomic_write

PathLike = Path | str
Content = dict[str, Any]
"""The content of a checkpoint file, as torch returns it."""
KEY = "cflightning"
FORMAT = 1
SVDPP_KEY, ADAPTIVE_PENALTY_KEY, SOLVER_KEY = "cflightning_svdpp", "cflightning_adaptive_penalty", "cflightning_solver"
"""Keys of training state, with which a run is resumed: SVD++ terms, multiples of the penalties, state of a solver."""


@dataclass(frozen=True)
class CheckpointMetadata:
    """Metadata of a model, from which its network is rebuilt; plain types in a file.

    Attributes:
        task: Module and name of the task class.
        objective: Objective of the training; empty if the task has only one.
        engine: Name of the engine of the training; empty if unknown.
        rating_range: Lowest and highest rating; None if the model does not predict ratings.
        mean_rating: Mean rating of the training part; None if the model does not predict ratings.
        train_rows: Number of training rows.
        learning_rate: Peak learning rate of the training; None if unknown.
        l2: Penalty on factors before it was adapted; None if unknown, or if the model does not predict ratings.
        ranking: Complete settings of the ranking objective.
        ranking_objective: Ranking objective that the fit has chosen; empty before, and if an option names it for a
            model that only ranks.
        ranking_dim: Latent factors of the network of that objective; None likewise.
        ranking_trials: nDCG@10 on validation rows of the ranking models that were compared, by description.
        ranking_chosen: Description of the one that was chosen; empty if there was no choice.
        ranking_trained: Whether the ranking network of a multitask model is trained.
        data: Table and split of the training.
        metrics: Metrics of the saved epoch.
    """

    task: str = ""
    objective: str = ""
    engine: str = ""
    rating_range: tuple[float, float] | None = None
    mean_rating: float | None = None
    train_rows: int | None = None
    learning_rate: float | None = None
    l2: float | None = None
    ranking: dict[str, Any] = field(default_factory=dict)
    ranking_objective: str = ""
    ranking_dim: int | None = None
    ranking_trials: dict[str, float] = field(default_factory=dict)
    ranking_chosen: str = ""
    ranking_trained: bool = False
    data: Provenance | None = None
    metrics: dict[str, float] = field(default_factory=dict)


METADATA_TYPES: dict[str, tuple[type, ...]] = {
    "task": (str,), "objective": (str,), "engine": (str,), "rating_range": (list, tuple, NoneType),
    "mean_rating": (float, int, NoneType), "train_rows": (int, NoneType),
    "learning_rate": (float, int, NoneType), "l2": (float, int, NoneType), "ranking": (dict,),
    "ranking_objective": (str,), "ranking_dim": (int, NoneType), "ranking_trials": (dict,),
    "ranking_chosen": (str,), "ranking_trained": (bool,), "metrics": (dict,),
}  # fmt: skip
"""Types of the metadata in a file, by field."""


def pack_metadata(vocabulary: Vocabulary, metadata: CheckpointMetadata) -> dict[str, object]:
    """Return the value of the checkpoint's key `cflightning`: format, vocabulary and metadata."""
    return {"format": FORMAT, **vocabulary.state(), **asdict(metadata)}


def unpack_metadata(checkpoint: Content, source: str = "checkpoint") -> tuple[Vocabulary, CheckpointMetadata]:
    """Return vocabulary and metadata of a loaded checkpoint.

    Args:
        checkpoint: Content of the file.
        source: Name of the file, for messages.

    Raises:
        CheckpointError: The file was not written by cflightning, or by a later version, or it was edited.
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
    """Raise a CheckpointError if a path is an address, where the file could differ each time."""
    # pathlib merges two slashes.
    if "://" in str(path) or (re.match(r"[A-Za-z][\w+.-]+:/", str(path)) and not Path(path).exists()):
        raise CheckpointError(f"{str(path)[:100]}: must be a local file, but is an address; download it first")


def read_checkpoint(path: Path | str, mapped: bool = False) -> Content:
    """Return the content of a checkpoint file, on the CPU; plain types and tensors only, never code.

    The project reads every checkpoint with this function.

    Args:
        path: A local file.
        mapped: Whether tensors are memory-mapped instead of read.

    Raises:
        CheckpointError: The path is an address or no file, or the file is damaged or holds other objects.
    """
    refuse_address(path)
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: must be a checkpoint file, but there is none")
    try:
        content: Content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # a damaged file raises many kinds of errors
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: cannot be read as a checkpoint ({reason[:200]})") from error
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise CheckpointError(f"{path}: must be a Lightning checkpoint, but holds something else")
    version = str(content.get("pytorch-lightning_version", ""))
    if KEY in content and version[:1] in "01":  # Lightning would migrate it; no checkpoint of cflightning is that old
        raise CheckpointError(f"{path}: must be of Lightning 2 or later, got version {version[:20] or 'unknown'}")
    return content


class FileCheckpointIO(TorchCheckpointIO):
    """Writes and reads checkpoints without the two copies in memory that Lightning's own makes.

    Args:
        remote: Address of the checkpoint folder of the user, if it is not local; other addresses are not fetched.
    """

    def __init__(self, remote: str | None = None) -> None:
        self.remote = remote

    def save_checkpoint(self, checkpoint: Content, path: PathLike, storage_options: object = None) -> None:
        """Write a file that replaces the old one in one step."""
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(Path(path), "wb") as out:
            torch.save(checkpoint, out)

    def load_checkpoint(
        self, path: PathLike, map_location: object = "cpu", weights_only: bool | None = None
    ) -> Content:
        """Read plain types and memory-mapped tensors; never code, whatever `weights_only` is."""
        if self.remote and str(path).startswith(f"{self.remote.rstrip('/')}/") and not str(path).startswith("http"):
            content: Content = super().load_checkpoint(path, weights_only=True)
            return content
        return read_checkpoint(path, mapped=True)


def locate_checkpoint(path: Path) -> Path:
    """Return a checkpoint file, or the best checkpoint of a run folder.

    Raises:
        CheckpointError: The path is neither; names the runs below it.
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
