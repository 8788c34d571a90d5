"""Log format of the server: one line for each record, whatever text it contains."""

from __future__ import annotations

import logging
import re
from types import TracebackType

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

ExceptionInfo = (
    tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
)  # as sys.exc_info returns it


class OneLineFormatter(logging.Formatter):
    r"""Formatter that escapes control characters (as ``\n``, ``\x1b``), so that no value can forge a record.

    The lines of a traceback follow their record, each after a bar.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Format the record's own line."""
        return escape(super().formatMessage(record))

    def formatException(self, ei: ExceptionInfo) -> str:
        """Format a traceback."""
        return "\n".join(f"  | {escape(line)}" for line in super().formatException(ei).splitlines())


def escape(text: str) -> str:
    """Replace control characters and lone surrogates by their escape sequences."""
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


def configure_logging() -> None:
    """Log to standard error at level INFO."""
    handler = logging.StreamHandler()
    handler.setFormatter(OneLineFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
