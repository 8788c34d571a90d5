"""Tasks of checkpoints, loaded without a Trainer."""

from __future__ import annotations

from pathlib import Path

from cflightning.tasks import embedding  # noqa: F401  (defines the tasks that a checkpoint may name)
from cflightning.tasks.rating import RatingTask


def load_task(path: Path | str) -> RatingTask:
    """Return the task of a checkpoint, its network built and filled, in evaluation mode on the CPU.

    Raises:
        CheckpointError: See `NetworkTask.load_from_checkpoint`.
    """
    task: RatingTask = RatingTask.load_from_checkpoint(path)
    return task
