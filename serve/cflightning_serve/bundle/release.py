"""Freeing what is large step by step: no other thread of Python runs during one step."""

import threading
import time
import weakref
from typing import Any

_PAUSE = 0.01
"""Seconds between two steps."""


def release_in_steps(owner: object, things: dict[Any, Any], at_once: int) -> None:
    """Have a dict emptied in a thread of its own once its owner is gone.

    Args:
        owner: who alone uses the dict.
        things: emptied from its end.
        at_once: entries of one step.
    """
    weakref.finalize(owner, _start, things, at_once).atexit = False


def _start(things: dict[Any, Any], at_once: int) -> None:
    threading.Thread(target=_empty, args=(things, at_once), name="bundle-freeing", daemon=True).start()


def _empty(things: dict[Any, Any], at_once: int) -> None:
    while things:
        for _ in range(min(at_once, len(things))):
            things.popitem()
        time.sleep(_PAUSE)
