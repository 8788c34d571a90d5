"""Availability of compiled kernels on this machine; importing this module does not import numba."""

from __future__ import annotations

import logging
import os
from functools import lru_cache
from importlib.util import find_spec

log = logging.getLogger(__name__)


@lru_cache(maxsize=1)
def unavailable_reason() -> str | None:
    """Return why compiled kernels cannot be used here, or None; it compiles a small kernel to find out.

    Logs a warning if numba is installed and cannot be used.
    """
    if find_spec("numba") is None:
        return "it needs numba (pip install 'cflightning[fast]')"
    try:
        from cflightning.kernels.self_test import numba_computes_correctly

        reason = None if numba_computes_correctly() else "numba compiles, but its results are wrong"
    except Exception as error:  # numba fails in as many ways as there are machines
        text = " ".join(str(error).split())[:160]
        reason = f"numba cannot compile here ({type(error).__name__}: {text})"
        if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
            reason = "compiling by numba is disabled (NUMBA_DISABLE_JIT)"
    if reason is not None:
        log.warning("compiled kernels cannot be used: %s", reason)
    return reason


def kernels_available() -> bool:
    """Return whether compiled kernels can be used here."""
    return unavailable_reason() is None
