"""The errors of cflightning, for mistakes that a user can correct.

Every class is also the builtin exception of its kind, so ``except ValueError`` works as usual.
Messages read "where: what must hold, what was got; what to do".
"""

from __future__ import annotations


class CFLightningError(Exception):
    """Base of all errors of the project.

    Attributes:
        reported: Whether another process of the same training prints the message.
    """

    reported = False


class DataError(CFLightningError, ValueError):
    """A table, file or split that cannot be used."""


class SourceError(CFLightningError, OSError):
    """A data source that cannot be reached."""


class TrainingError(CFLightningError, ArithmeticError):
    """A training without usable result."""


class CheckpointError(CFLightningError, ValueError):
    """A checkpoint that was not written by cflightning, or by a newer version."""


class ExportError(CFLightningError, RuntimeError):
    """A bundle that could not be written, or failed its verification."""


class StorageError(CFLightningError, OSError):
    """A file that cannot be written: the disk is full, or the permission is missing."""


class ResourceError(CFLightningError, MemoryError):
    """A lack of memory."""


class ConfigError(CFLightningError, ValueError):
    """An option that is wrong, or options that exclude each other."""


class ArgumentError(ConfigError, DataError):
    """A constructor argument that is not one of its choices, or outside its range.

    Args:
        group: Group of the option on the command line, `data` or `model`.
        name: Name of the argument.
        problem: The requirement and the value, as "must …, got …".

    Attributes:
        option: The message with the name of the option on the command line.
    """

    def __init__(self, group: str, name: str, problem: str) -> None:
        super().__init__(f"{name}: {problem}")
        self.parts = group, name, problem
        self.option = f"--{group}.{name}: {problem}"

    def __reduce__(self) -> tuple[type[ArgumentError], tuple[str, str, str]]:
        return type(self), self.parts


class ProcessError(CFLightningError, RuntimeError):
    """A failed or lost process among those of one training."""
