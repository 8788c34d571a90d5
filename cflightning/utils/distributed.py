"""Several processes of one training: how they were launched, that they work on the same, and how a failure spreads."""

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
    "whoever set RANK and WORLD_SIZE": ("RANK", "RANK", "WORLD_SIZE"),
}
"""Launchers by name: a variable that marks them, and those that hold a process's number and how many there are."""
CHUNK = 1 << 26
"""Bytes of a file that are sent at a time."""


class Launch(NamedTuple):
    """Processes that were started together, as the environment has them.

    Attributes:
        launcher: a name in `LAUNCHERS`.
        rank: number of this process.
        processes: how many.
    """

    launcher: str
    rank: int
    processes: int


def find_launch(environment: Mapping[str, str] = os.environ) -> Launch | None:
    """The launcher that started this process beside others; None for a process that was started alone.

    Args:
        environment: variables by name.
    """
    for name, (mark, *numbers) in LAUNCHERS.items():
        rank, size = (environment.get(number, "") for number in numbers)
        if mark in environment and rank.isdigit() and size.isdigit() and int(size) > 1:
            return Launch(name, int(rank), int(size))
    return None


def check_launch(trainer: Trainer, launch: Launch | None) -> None:
    """Refuse processes that a launcher has started together and the Trainer would let train alone.

    Args:
        trainer: before it runs.
        launch: how this process was started; None for alone.

    Raises:
        ConfigError: the Trainer has fewer processes than the launcher.
    """
    if launch is not None and trainer.world_size < launch.processes:
        error = ConfigError(
            f"--trainer.devices: {launch.launcher} has started {launch.processes} processes that must train together, "
            f"but the trainer knows of {trainer.world_size}; give --trainer.strategy ddp, --trainer.devices (processes "
            f"of a machine) and --trainer.num_nodes (machines), or start one process"
        )
        error.reported = launch.rank > 0
        raise error


def check_strategy(trainer: Trainer) -> None:
    """Refuse strategies under which processes would train apart.

    Args:
        trainer: before it runs.

    Raises:
        ConfigError: neither one device, nor DDP or a strategy derived from it.
    """
    strategy = trainer.strategy
    if not isinstance(strategy, (SingleDeviceStrategy, DDPStrategy)):
        raise ConfigError(
            f"--trainer.strategy: must be auto, ddp or a strategy derived from DDPStrategy, "
            f"got {type(strategy).__name__}, which cflightning cannot train with"
        )


@contextmanager
def shared_failures(trainer: Trainer) -> Iterator[None]:
    """Put off an error of reading in a process that others wait for: the data is read again where all learn of it.

    Args:
        trainer: before it runs; an error of a process that has not yet started the others is raised at once.
    """
    try:
        yield
    except CFLightningError:
        if trainer.world_size == 1 or (find_launch() is None and "LOCAL_RANK" not in os.environ):
            raise


def run_together(work: Callable[[], T]) -> T:
    """Run a function on every process; where it fails on one, every process raises that error.

    Otherwise the others would wait for the failed one in their next exchange. Outside of a process group it just runs.

    Args:
        work: must not exchange anything by itself before it fails.

    Raises:
        ProcessError: another process has failed; the message names it.
        Exception: what this process has failed with.
    """
    if not in_group():
        return work()
    failure: Exception | None = None
    try:
        result = work()
    except Exception as error:  # whatever it is, the others must learn of it
        failure = error
    failures = gather(None if failure is None else _describe(failure))
    first = next((rank for rank, text in enumerate(failures) if text), None)
    if first is None:
        return result
    speaker = distributed.get_rank() == 0
    if isinstance(failure, CFLightningError):
        failure.reported = not speaker
    # An error that every process has is raised as it is; one that some have is named by its rank.
    if failure is not None and (None not in failures or not isinstance(failure, CFLightningError)):
        raise failure
    named = ProcessError(f"rank {first}: {failures[first]}")
    named.reported = not speaker
    raise named from failure


def compare(what: str, value: str, explain: Callable[[int], str]) -> None:
    """Refuse processes that differ in something that they must have in common.

    Args:
        what: has to be the same, for the message.
        value: what this process has.
        explain: says how a rank differs; called on every process, with the first such rank.

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
    """Whether this process trains together with others."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def gather(value: Any) -> list[Any]:
    """The value of every process of the group, by rank."""
    found: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, value)
    return found


@contextmanager
def shared_file(path: Path) -> Iterator[Path]:
    """Give every process a file that rank 0 has written, where disks are not shared by a temporary copy.

    Every process must enter this.

    Args:
        path: on rank 0; another process may have nothing there, or another file.

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
