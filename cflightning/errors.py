"""The errors that cflightning raises for what a user can put right.

Every class is also the builtin that the situation would raise, so ``except ValueError`` works as anyone expects.
Messages read "where: what must hold, what was got; what to do".
"""

from __future__ import annotations


class CFLightningError(Exception):
    """Base of all errors of the project.

    Attributes:
        told: whether another process of the same training prints the message, so that this one need not.
    """

    told = False


class DataError(CFLightningError, ValueError):
    """A table, file or split that cannot be used."""


class SourceError(CFLightningError, OSError):
    """A data source that cannot be reached."""


class TrainingError(CFLightningError, ArithmeticError):
    """Training that came to nothing."""


class CheckpointError(CFLightningError, ValueError):
    """A checkpoint that was not written by cflightning, or by a newer one."""


class ExportError(CFLightningError, RuntimeError):
    """A bundle that could not be written or failed its check."""


class StorageError(CFLightningError, OSError):
    """A file that cannot be written: the disk is full, or the folder may not be written to."""


class ResourceError(CFLightningError, MemoryError):
    """More memory than there is."""


class ConfigError(CFLightningError, ValueError):
    """Options that do not fit together."""


class ArgumentError(ConfigError, DataError):
    """An argument of a constructor that is none of its choices, or outside its range.

    Args:
        group: Where the command line has the argument: `data` or `model`.
        name: The argument's.
        says: What must hold, and what was got.

    Attributes:
        option: The message with the argument's name as the command line has it.
    """

    def __init__(self, group: str, name: str, says: str) -> None:
        super().__init__(f"{name}: {says}")
        self.parts = group, name, says
        self.option = f"--{group}.{name}: {says}"

    def __reduce__(self) -> tuple[type[ArgumentError], tuple[str, str, str]]:
        return type(self), self.parts


class ProcessError(CFLightningError, RuntimeError):
    """A training of several processes of which one failed or was lost."""
