"""The task of a checkpoint file, made without a Trainer; no code of the file runs, and no class is imported for it."""

from __future__ import annotations

from collections.abc import Iterator

from lightning.pytorch import LightningModule

from cflightning.checkpoint.format import Content, PathLike, read_checkpoint, unpack_metadata
from cflightning.checkpoint.settings import check_names, plain_settings
from cflightning.errors import CheckpointError


def task_class(content: Content, source: str, base: type[LightningModule]) -> type[LightningModule]:
    """Return the class of the task that wrote a checkpoint, among the imported ones; it is never imported.

    Args:
        content: A loaded checkpoint.
        source: Its file, for messages.
        base: Base class of all tasks.

    Raises:
        CheckpointError: See `unpack_metadata`, or there is no such class.
    """
    _, metadata = unpack_metadata(content, source)
    for kind in _subclasses(base):
        if f"{kind.__module__}.{kind.__qualname__}" == metadata.task:
            return kind
    raise CheckpointError(f"{source}: was written by the task {metadata.task[:100]}; import its package first")


def make_task(path: PathLike, base: type[LightningModule], expected: type[LightningModule]) -> LightningModule:
    """Return the task of a checkpoint file, its network built and filled, in evaluation mode on the CPU.

    Args:
        path: A local file.
        base: Base class of all tasks.
        expected: Required class of the task.

    Raises:
        CheckpointError: The file cannot be read, is of another task, or has settings that do not fit.
    """
    content = read_checkpoint(path)
    kind = task_class(content, str(path), base)
    if not issubclass(kind, expected):
        raise CheckpointError(f"{path}: must be of {expected.__name__}, but is of {kind.__name__}")
    settings = plain_settings(content, str(path))
    check_names(settings, kind, str(path))
    try:
        task = kind(**settings)
        task.on_load_checkpoint(content)
        task.load_state_dict(content["state_dict"])
    except CheckpointError:
        raise
    except Exception as error:  # settings and tables that do not fit together fail in many ways
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: does not fit {kind.__name__} ({reason[:200]}); was it edited?") from error
    return task.eval()


def _subclasses(kind: type[LightningModule]) -> Iterator[type[LightningModule]]:
    for subclass in reversed(kind.__subclasses__()):  # the latest definition of a name first
        yield subclass
        yield from _subclasses(subclass)
