"""Exceptions of the package: each is a ``ServeError`` and the builtin exception that a caller expects."""


class ServeError(Exception):
    """Base class of every exception that this package raises deliberately."""


class BundleError(ServeError, ValueError):
    """The bundle is damaged, incomplete, edited, of a newer format, or not a bundle."""


class NotFiniteError(BundleError):
    """A result contains NaN or infinity, because of the bundle's tables or of extreme inputs."""


class InputError(ServeError, ValueError):
    """An argument is invalid: ids of the wrong type, unequal lengths, ``k`` below 1."""


class UnsupportedError(InputError):
    """The bundle lacks the graph or the file that a request needs."""


class UnknownIdError(ServeError, KeyError):
    """An id was not seen in training, and the request is defined for known ids only."""

    def __str__(self) -> str:  # KeyError would show the message in quotes
        return Exception.__str__(self)
