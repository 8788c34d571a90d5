"""The error family: every error of this package is a ``ServeError`` and also the builtin that a caller would expect."""


class ServeError(Exception):
    """Base of every error that this package raises on purpose."""


class BundleError(ServeError, ValueError):
    """The bundle is damaged, incomplete, edited, too new, or not a bundle."""


class NotFiniteError(BundleError):
    """An answer holds NaN or infinity: the tables do, or the question held immense numbers."""


class InputError(ServeError, ValueError):
    """A question makes no sense: ids of the wrong type, unequal lengths, ``k`` below one."""


class UnsupportedError(InputError):
    """The bundle was written without what answers such a question."""


class UnknownIdError(ServeError, KeyError):
    """An id that was not seen in training, where only a known one has an answer."""

    def __str__(self) -> str:  # KeyError would show the message in quotes
        return Exception.__str__(self)
