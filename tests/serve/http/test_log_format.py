"""Log records are lines that no value can forge."""

import logging
import sys

from cflightning_serve.http.log_format import OneLineFormatter


def test_line_breaks_and_control_characters_are_escaped():
    try:
        raise ValueError("a\n2026-01-01 00:00:00 INFO forged")
    except ValueError:
        exception = sys.exc_info()
    text = "x\n2026-01-01 INFO forged\r\x1b[2K\u2028\ud800"
    record = logging.LogRecord("a", logging.ERROR, "", 0, "%s", (text,), exception)
    output = OneLineFormatter("%(asctime)s %(levelname)s %(message)s").format(record)
    first, *rest = output.splitlines()
    assert "\\n2026-01-01 INFO forged\\r\\x1b[2K\\u2028\\ud800" in first
    assert rest and all(line.startswith("  | ") for line in rest)
    output.encode()
