"""The import of torch, which takes seconds: its environment, and a pause of the garbage collector."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing_torch() -> Iterator[None]:
    """Prepare the process for imports of torch and Lightning, which belong inside.

    - ``OMP_WAIT_POLICY``: torch reads it when it starts its threads. Steps are short, and threads spin while they wait
      for each other: on a busy machine that made a fit 30 times slower. A short spin, then sleep, is safe there and
      costs about a fifth of the speed on a quiet machine, where immediate sleep costs a third (libgomp, torch's OpenMP
      on Linux).
    - Garbage collection: the imports make millions of objects that stay. Collecting among them, during the imports and
      at exit, takes a quarter of the time of a small fit.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
    if "triton" in sys.modules:  # its bindings report uncollected objects at exit as leaks
        atexit.register(gc.unfreeze)
