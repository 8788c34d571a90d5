"""Standard streams that a caller has closed, as daemons and some schedulers do."""

import os
import sys


def open_standard_streams() -> None:
    """Let streams that are closed lead nowhere.

    Python has None in place of such a stream, and the next file that is opened would get its number: what a library
    then writes to standard error would land in that file.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            # For as long as the process lives.
            setattr(sys, name, open(number, mode, encoding="utf-8", errors="replace", closefd=False))  # noqa: SIM115
