"""The log of the server: one record, one line, whatever stands in it."""

from __future__ import annotations

import logging
import re
from typing import Any

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class LineFormatter(logging.Formatter):
    r"""Writes what steers a terminal or breaks a line as ``\n`` and ``\x1b``, so that no value can forge a record.

    A traceback's lines follow their record, each after a bar.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Lay out the record's own line."""
        return escape(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        """Lay out a traceback."""
        lines = super().formatException(ei).splitlines()
        return "\n".join(f"  | {escape(line)}" for line in lines)


def escape(text: str) -> str:
    """Replace control characters and lone surrogates by their escapes."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def set_up() -> None:
    """Log to standard error, from INFO on."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
