"""Several processes of one training: their launch, agreement and errors."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

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
"""Launchers by name: the variable that identifies it, and those of the rank and of the number of processes."""
CHUNK_BYTES = 1 << 26
"""Bytes of a file that are sent at a time."""


class Launch(NamedTuple):
    """Processes that were started together, according to the environment.

    Attributes:
        launcher: A name in `LAUNCHERS`.
        rank: Rank of this process.
        processes: Number of processes.
    """

    launcher: str
    rank: int
    processes: int


def find_launch(environment: Mapping[str, str] = os.environ) -> Launch | None:
    """Return the launcher of this process; None if it was started alone.

    Args:
        environment: Environment variables.
    """
    for name, (mark, *numbers) in LAUNCHERS.items():
        rank, size = (environment.get(number, "") for number in numbers)
        if mark in environment and rank.isdigit() and size.isdigit() and int(size) > 1:
            return Launch(name, int(rank), int(size))
    return None


def check_launch(trainer: Trainer, launch: Launch | None) -> None:
    """Refuse a Trainer that would let processes of one launch train separately.

    Args:
        trainer: Before it runs.
        launch: The launch; None if this process was started alone.

    Raises:
        ConfigError: The Trainer has fewer processes than the launcher.
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
    """Refuse strategies other than one device and DDP.

    Args:
        trainer: Before it runs.

    Raises:
        ConfigError: The strategy is neither for one device nor derived from DDP.
    """
    strategy = trainer.strategy
    if not isinstance(strategy, (SingleDeviceStrategy, DDPStrategy)):
        raise ConfigError(
            f"--trainer.strategy: must be auto, ddp or a strategy derived from DDPStrategy, "
            f"got {type(strategy).__name__}, which cflightning cannot train with"
        )


@contextmanager
def shared_failures(trainer: Trainer) -> Iterator[None]:
    """Suppress an error of reading in a process for which others wait; a later read raises it in all of them.

    Args:
        trainer: Before it runs; a process that has not yet started the others raises its error at once.
    """
    try:
        yield
    except CFLightningError:
        if trainer.world_size == 1 or (find_launch() is None and "LOCAL_RANK" not in os.environ):
            raise


def run_together(work: Callable[[], T]) -> T:
    """Run a function on every process; if it fails on one, every process raises an error.

    Otherwise the other processes would wait for the failed one in their next communication. Outside a process group,
    the function just runs.

    Args:
        work: The function; it must not communicate before it fails.

    Raises:
        ProcessError: Another process failed; names its rank.
        Exception: The error of this process.
    """
    if not in_group():
        return work()
    failure: Exception | None = None
    try:
        result = work()
    except Exception as error:  # the other processes need to know of any error
        failure = error
    failures = gather(None if failure is None else _describe(failure))
    first = next((rank for rank, text in enumerate(failures) if text), None)
    if first is None:
        return result
    prints = distributed.get_rank() == 0
    if isinstance(failure, CFLightningError):
        failure.reported = not prints
    # An error of all processes is raised as it is; an error of some is raised with its rank.
    if failure is not None and (None not in failures or not isinstance(failure, CFLightningError)):
        raise failure
    named = ProcessError(f"rank {first}: {failures[first]}")
    named.reported = not prints
    raise named from failure


def check_equal(what: str, value: str, explain: Callable[[int], str]) -> None:
    """Refuse processes that differ in a value that they must share.

    Args:
        what: Name of the value, for the message.
        value: The value of this process.
        explain: Describes the difference of a rank; called on every process, with the first such rank.

    Raises:
        ConfigError: Names the first rank that differs from rank 0.
    """
    if not in_group():
        return
    values = gather(value)
    other = next((rank for rank, text in enumerate(values) if text != values[0]), None)
    if other is None:
        return
    error = ConfigError(f"rank {other}: must have the same {what} as rank 0, got {explain(other)}")
    error.reported = distributed.get_rank() != 0
    raise error


def in_group() -> bool:
    """Return whether this process trains together with others."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def gather(value: T) -> list[T]:
    """Return the values of all processes of the group, by rank."""
    values = [value] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


@contextmanager
def shared_file(path: Path) -> Iterator[Path]:
    """Give every process the file of rank 0, as a temporary copy on machines that do not share the disk.

    Every process must enter this.

    Args:
        path: The file on rank 0; another process can have no file there, or a different one.

    Yields:
        `path`, or the copy.
    """
    digests = gather(_digest(path)) if in_group() else []
    if len(set(digests)) < 2:
        yield path
        return
    rank = distributed.get_rank()
    with tempfile.TemporaryDirectory(prefix="cflightning-") as folder:
        local = path if digests[rank] == digests[0] else Path(folder) / path.name
        with (
            path.open("rb") if rank == 0 else BytesIO() as source,
            BytesIO() if local == path else local.open("wb") as target,
        ):
            while content := _broadcast(source.read(CHUNK_BYTES)):
                if local != path:
                    target.write(content)
        yield local


def _broadcast(value: T) -> T:
    values = [value]
    distributed.broadcast_object_list(values, 0)
    return values[0]


def _digest(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _describe(error: Exception) -> str:
    text = str(error) if isinstance(error, CFLightningError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split()) or type(error).__name__
