"""Compiling by numba where folders cannot be written, caches are damaged, or compiling is switched off.

This module imports numba only when it is needed: everyone may ask here whether kernels can be used.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

log = logging.getLogger(__name__)
F = TypeVar("F", bound=Callable[..., Any])

PROBE = 1 << 20
"""Bytes that must fit into a cache folder for it to be used."""


def compiled(*, cache: bool = True, **options: Any) -> Callable[[F], F]:
    """Make a decorator that compiles a function by numba, as ``numba.njit``, and keeps the result where it can.

    A cache that cannot be read or written costs the time of compiling, nothing else.

    Args:
        cache: whether to keep the result on disk; a function that is inlined has nothing to keep.
        options: of ``numba.njit``.
    """
    numba: Any = import_module("numba")  # its own annotations know neither configuration nor caches
    config = numba.config

    def decorate(function: F) -> F:
        dispatcher: F = numba.njit(**options)(function)
        folder = find_cache_folder() if cache and not config.DISABLE_JIT else None
        if folder is not None:
            before, config.CACHE_DIR = config.CACHE_DIR, folder
            try:
                # As `enable_caching` does; numba has no public way to name another kind of cache.
                dispatcher._cache = _cache_kind()(function)  # type: ignore[attr-defined]
            finally:
                config.CACHE_DIR = before
        return dispatcher

    return decorate


@lru_cache(maxsize=1)
def unavailable_reason() -> str | None:
    """Why compiled kernels cannot be used here, or None: found out by compiling a small one.

    Logs a warning where numba is installed all the same.
    """
    if find_spec("numba") is None:
        return "it needs numba (pip install 'cflightning[fast]')"
    try:
        from cflightning.kernels.probe import works

        reason = None if works() else "numba compiles, but computes something else"
    except Exception as error:  # numba fails in as many ways as there are machines
        text = " ".join(str(error).split())[:160]
        reason = f"numba cannot compile here ({type(error).__name__}: {text})"
        if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
            reason = "numba is told not to compile (NUMBA_DISABLE_JIT)"
    if reason is not None:
        log.warning("compiled kernels cannot be used: %s", reason)
    return reason


def usable() -> bool:
    """Whether compiled kernels can be used."""
    return unavailable_reason() is None


@lru_cache(maxsize=1)
def find_cache_folder() -> str | None:
    """The folder for numba's cache: '' for numba's usual one beside each module, None where there is none to write to.

    In turn NUMBA_CACHE_DIR, the folders of the kernels, and `numba` in the folder of CFLIGHTNING_CACHE or the user's
    cache folder. numba's own choice would be a folder named `~` where nobody knows the user's home.
    """
    numba: Any = import_module("numba")
    chosen = str(numba.config.CACHE_DIR or "")
    if chosen:
        candidates = [(chosen, Path(chosen))]
    else:
        own = _user_folder()
        candidates = [("", Path(__file__).parent / "__pycache__"), *([(str(own), own)] if own is not None else [])]
    for name, path in candidates:
        try:
            path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path) as file:
                file.write(bytes(PROBE))
        except OSError as error:
            log.debug("no compiled code can be kept in %s: %s", path, error)
        else:
            return name
    log.info("compiled code cannot be kept (no folder to write to): each run compiles anew; set NUMBA_CACHE_DIR")
    return None


def _user_folder() -> Path | None:
    """`numba` in the project's cache folder, if there is a home."""
    for given, parts in (("CFLIGHTNING_CACHE", ()), ("XDG_CACHE_HOME", ("cflightning",))):
        if (named := os.environ.get(given)) and os.path.isabs(named):
            return Path(named, *parts, "numba")
    home = os.path.expanduser("~")  # unchanged where nobody knows it, / where HOME is empty
    known = os.path.isabs(home) and os.path.isdir(home) and home != os.sep
    return Path(home, ".cache", "cflightning", "numba") if known else None


@lru_cache(maxsize=1)
def _cache_kind() -> type[Any]:
    caching: Any = import_module("numba.core.caching")

    class ForgivingCache(caching.FunctionCache):
        """numba's cache of a function, which takes a damaged file for none and a full disk for no cache."""

        def load_overload(self, sig: Any, target_context: Any) -> Any:
            """The compiled function, or None where it must be compiled."""
            try:
                return super().load_overload(sig, target_context)
            except Exception as error:  # whatever damaged bytes make of a pickle
                log.info("cached code of %s cannot be read (%s): compiled anew", self._name, type(error).__name__)
                try:
                    self.flush()
                except OSError:
                    self.disable()
                return None

        def save_overload(self, sig: Any, data: Any) -> None:
            """Keep a compiled function, if there is room."""
            try:
                super().save_overload(sig, data)
            except OSError as error:
                log.info("compiled code cannot be kept in %s (%s)", self.cache_path, error.strerror)
                self.disable()

    return ForgivingCache
