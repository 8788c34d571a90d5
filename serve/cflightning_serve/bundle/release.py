"""Release of large objects in steps: deallocation holds Python's global lock, so one long step stalls all threads."""

import threading
import time
import weakref
from collections.abc import MutableMapping
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")
PAUSE = 0.01
"""Seconds between two steps, for other threads."""


def release_in_steps(owner: object, entries: MutableMapping[K, V], step: int) -> None:
    """Empty a dict step by step, in a background thread, once its owner has been garbage-collected.

    Args:
        owner: the only user of the dict.
        entries: the dict, emptied from its end.
        step: entries that are removed between two pauses.
    """
    weakref.finalize(owner, _start_thread, entries, step).atexit = False


def _start_thread(entries: MutableMapping[K, V], step: int) -> None:
    threading.Thread(target=_empty, args=(entries, step), name="bundle-release", daemon=True).start()


def _empty(entries: MutableMapping[K, V], step: int) -> None:
    while entries:
        for _ in range(min(step, len(entries))):
            entries.popitem()
        time.sleep(PAUSE)
