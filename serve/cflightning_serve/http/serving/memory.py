"""Memory of a long-lived process: what is freed goes back to the system."""

from __future__ import annotations

import ctypes

_ARENA_MAX, _MMAP_THRESHOLD = -8, -3
"""Parameters of glibc's ``mallopt``."""
_ARENAS = 2
_LARGE = 1 << 20
"""Bytes from which on a block is mapped alone, and unmapped when it is freed."""


def keep_memory_flat() -> bool:
    """Make glibc keep no more freed memory than a small server needs.

    By default every thread gets a heap of its own, and the first large block that is freed raises the size up to which
    blocks come from these heaps, where a small one above keeps them from shrinking: a server that loads bundles and
    writes large answers grows to several times what it uses.

    Returns:
        Whether the C library knows these parameters.
    """
    try:
        set_parameter = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or Windows
        return False
    return bool(set_parameter(_ARENA_MAX, _ARENAS) and set_parameter(_MMAP_THRESHOLD, _LARGE))
