"""Distributed training: launchers, consistency checks, and propagation of failures between processes."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import distributed

from cflightning.errors import CFLightningError, ConfigError, ProcessError

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

T = TypeVar("T")
LAUNCHERS = {
    "torchrun": ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE"),
    "SLURM": ("SLURM_PROCID", "SLURM_PROCID", "SLURM_NTASKS"),
    "MPI": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    "a launcher that sets RANK and WORLD_SIZE": ("RANK", "RANK", "WORLD_SIZE"),
}
"""Launcher -> environment variables: one that identifies it, the rank, and the number of processes."""
CHUNK = 1 << 26
"""Chunk size of a file that is sent to other processes, bytes."""


class Launch(NamedTuple):
    """Processes that a launcher started together, according to the environment.

    Attributes:
        launcher: a name in `LAUNCHERS`.
        rank: rank of this process.
        processes: number of processes.
    """

    launcher: str
    rank: int
    processes: int


def find_launch(environment: Mapping[str, str] = os.environ) -> Launch | None:
    """Find the launcher of this process; None if it was started alone.

    Args:
        environment: variables by name.
    """
    for name, (mark, *numbers) in LAUNCHERS.items():
        rank, size = (environment.get(number, "") for number in numbers)
        if mark in environment and rank.isdigit() and size.isdigit() and int(size) > 1:
            return Launch(name, int(rank), int(size))
    return None


def check_launch(trainer: Trainer, launch: Launch | None) -> None:
    """Reject processes that were launched together if the Trainer would train each of them separately.

    Args:
        trainer: Trainer before it runs.
        launch: launcher of this process; None without one.

    Raises:
        ConfigError: the Trainer has fewer processes than the launcher.
    """
    if launch is not None and trainer.world_size < launch.processes:
        error = ConfigError(
            f"--trainer.devices: {launch.launcher} has started {launch.processes} processes that must train together, "
            f"but the trainer has {trainer.world_size}; give --trainer.strategy ddp, --trainer.devices (processes "
            f"of a machine) and --trainer.num_nodes (machines), or start one process"
        )
        error.reported = launch.rank > 0
        raise error


def check_strategy(trainer: Trainer) -> None:
    """Reject strategies under which processes would train separately.

    Args:
        trainer: Trainer before it runs.

    Raises:
        ConfigError: the strategy is neither a single device nor DDP or derived from it.
    """
    strategy = trainer.strategy
    if not isinstance(strategy, (SingleDeviceStrategy, DDPStrategy)):
        raise ConfigError(
            f"--trainer.strategy: must be auto, ddp or a strategy derived from DDPStrategy, "
            f"got {type(strategy).__name__}, which cflightning cannot train with"
        )


@contextmanager
def shared_failures(trainer: Trainer) -> Iterator[None]:
    """Defer a read error of a launched process: the data is read again inside `run_together`, which reports it to all.

    Args:
        trainer: Trainer before it runs; errors before other processes are started are raised immediately.
    """
    try:
        yield
    except CFLightningError:
        if trainer.world_size == 1 or (find_launch() is None and "LOCAL_RANK" not in os.environ):
            raise


def run_together(work: Callable[[], T]) -> T:
    """Run a function on every process; if it fails on one, every process raises the error.

    Otherwise the others would wait for the failed process in their next collective operation.

    Args:
        work: function without collective operations before the point of failure.

    Raises:
        ProcessError: another process failed; the message names its rank.
        Exception: the error of this process.
    """
    if not in_group():
        return work()
    failure: Exception | None = None
    try:
        result = work()
    except Exception as error:  # any kind: the others must be informed
        failure = error
    failures = gather(None if failure is None else _describe(failure))
    first = next((rank for rank, text in enumerate(failures) if text), None)
    if first is None:
        return result
    speaker = distributed.get_rank() == 0
    if isinstance(failure, CFLightningError):
        failure.reported = not speaker
    # An error of all processes is raised unchanged; an error of some is prefixed with the first rank.
    if failure is not None and (None not in failures or not isinstance(failure, CFLightningError)):
        raise failure
    named = ProcessError(f"rank {first}: {failures[first]}")
    named.reported = not speaker
    raise named from failure


def compare(what: str, value: str, explain: Callable[[int], str]) -> None:
    """Reject processes with different values of something that must be equal.

    Args:
        what: name of the value, for the message.
        value: value of this process.
        explain: describes the difference of a rank; called on every process with the first rank that differs.

    Raises:
        ConfigError: names the first rank that differs from rank 0.
    """
    if not in_group():
        return
    values = gather(value)
    other = next((rank for rank, one in enumerate(values) if one != values[0]), None)
    if other is None:
        return
    error = ConfigError(f"rank {other}: must have the same {what} as rank 0, got {explain(other)}")
    error.reported = distributed.get_rank() != 0
    raise error


def in_group() -> bool:
    """Return whether this process belongs to a process group of several."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def gather(value: Any) -> list[Any]:
    """Collect the value of every process of the group, by rank."""
    found: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, value)
    return found


@contextmanager
def shared_file(path: Path) -> Iterator[Path]:
    """Provide a file of rank 0 to every process, as a temporary copy on machines without a shared disk.

    Every process must enter this context.

    Args:
        path: path on rank 0; other processes may have no file or a different file there.

    Yields:
        `path`, or the copy.
    """
    known = gather(_digest(path)) if in_group() else []
    if len(set(known)) < 2:
        yield path
        return
    rank = distributed.get_rank()
    with tempfile.TemporaryDirectory(prefix="cflightning-") as folder:
        own = path if known[rank] == known[0] else Path(folder) / path.name
        with (
            path.open("rb") if rank == 0 else BytesIO() as source,
            BytesIO() if own == path else own.open("wb") as target,
        ):
            while content := _broadcast(source.read(CHUNK)):
                if own != path:
                    target.write(content)
        yield own


def _broadcast(value: T) -> T:
    held = [value]
    distributed.broadcast_object_list(held, 0)
    return held[0]


def _digest(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _describe(error: Exception) -> str:
    text = str(error) if isinstance(error, CFLightningError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split()) or type(error).__name__
