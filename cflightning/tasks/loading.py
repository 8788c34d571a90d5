"""Tasks of checkpoints, loaded without a Trainer."""

from __future__ import annotations

from pathlib import Path

from cflightning.tasks import embedding_dot, embedding_mlp  # noqa: F401  (the tasks that a checkpoint may name)
from cflightning.tasks.base import NetworkTask


def load_task(path: Path | str) -> NetworkTask:
    """Return the task of a checkpoint, its network built and filled, in evaluation mode on the CPU.

    Raises:
        CheckpointError: See `NetworkTask.load_from_checkpoint`.
    """
    task: NetworkTask = NetworkTask.load_from_checkpoint(path)
    return task
