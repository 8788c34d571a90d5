"""The errors that cflightning raises for what a user can put right.

Every class is also the builtin that the situation would raise, so ``except ValueError`` works as anyone expects.
Messages read "where: what must hold, what was got; what to do".
"""


class CFLightningError(Exception):
    """Base of all errors of the project."""


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
