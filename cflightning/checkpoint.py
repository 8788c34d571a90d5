"""What cflightning adds to a Lightning checkpoint, and how one is read without a Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from cflightning.data.vocabulary import Vocabulary
from cflightning.errors import CheckpointError
from cflightning.files import replacing

if TYPE_CHECKING:
    from cflightning.tasks.rating import RatingTask

KEY = "cflightning"
FORMAT = 1
VOCABULARY = ("users", "items", "titles", "categories", "counts")
"""What of the packed value is the vocabulary's; older checkpoints lack the last two."""


def pack(vocabulary: Vocabulary, **facts: Any) -> dict[str, Any]:
    """The value of the checkpoint's key `cflightning`: format, vocabulary and whatever rebuilds the network."""
    return {"format": FORMAT, **vocabulary.state(), **facts}


def unpack(checkpoint: dict[str, Any], source: str = "checkpoint") -> tuple[Vocabulary, dict[str, Any]]:
    """Vocabulary and facts from a loaded checkpoint.

    Raises:
        CheckpointError: not written by cflightning, or by a newer one.
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
    known = {"format", *VOCABULARY}
    facts = {key: value for key, value in packed.items() if key not in known}
    return Vocabulary.from_state(packed), facts


def read(path: Path) -> dict[str, Any]:
    """The content of a checkpoint file, on the CPU; plain types and tensors only, never code.

    Raises:
        CheckpointError: no such file, damaged, or it holds other objects.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: must be a checkpoint file, but there is none")
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the reader of damaged files fails in many ways
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: cannot be read as a checkpoint ({reason[:200]})") from error
    if not isinstance(content, dict) or "state_dict" not in content:
        raise CheckpointError(f"{path}: must be a Lightning checkpoint, but holds something else")
    return content


class FileCheckpointIO(TorchCheckpointIO):
    """Lightning's, but straight to and from the file: its own makes two copies of the tables in memory each time."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write beside the place, then move: readers see the old file or the new one."""
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with replacing(Path(path), "wb") as out:
            torch.save(checkpoint, out)

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = None) -> dict[str, Any]:
        """Plain types and tensors of a local file, mapped into memory; other addresses as Lightning does."""
        if weights_only and Path(path).is_file():
            content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            return content
        content = super().load_checkpoint(path, map_location, weights_only)
        return content


def load_task(path: Path) -> RatingTask:
    """The task of a checkpoint, its network built and filled, in evaluation mode on the CPU.

    The class is looked up among the tasks that are already imported: a checkpoint never imports anything.

    Raises:
        CheckpointError: see `read` and `unpack`, or an unknown task class.
    """
    import cflightning.tasks.embedding  # noqa: F401  (its tasks make themselves known)
    from cflightning.tasks.rating import RatingTask

    content = read(path)
    _, facts = unpack(content, str(path))
    kind = RatingTask.known.get(str(facts.get("task")))
    if kind is None:
        raise CheckpointError(f"{path}: was written by the task {facts.get('task')}; import its package first")
    hyper_parameters = {k: v for k, v in content.get("hyper_parameters", {}).items() if not k.startswith("_")}
    try:
        task = kind(**hyper_parameters)
        task.on_load_checkpoint(content)
        task.load_state_dict(content["state_dict"])
    except CheckpointError:
        raise
    except Exception as error:  # settings and tables that do not fit together fail in many ways
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: does not fit {kind.__name__} ({reason[:200]}); was it edited?") from error
    return task.eval()


def find(path: Path) -> Path:
    """The checkpoint that a path means: itself, or the best one of a run folder.

    Raises:
        CheckpointError: neither; names what is there.
    """
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
