"""Compilation by numba, with a cache on disk that tolerates read-only folders, damaged files and full disks.

This module imports numba only when it is needed.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TypeVar

log = logging.getLogger(__name__)
F = TypeVar("F", bound=Callable[..., object])

PROBE_BYTES = 1 << 20
"""Free space that a cache folder must have, in bytes."""


def compiled(*, cache: bool = True, **options: object) -> Callable[[F], F]:
    """Make a decorator that compiles a function as ``numba.njit`` does and caches the result.

    A cache that cannot be read or written costs the time of compiling, nothing else.

    Args:
        cache: Whether to cache the result on disk; inlined functions have no result of their own.
        options: Options of ``numba.njit``.
    """
    numba = import_module("numba")  # not imported by name: its annotations lack configuration and caches
    config = numba.config

    def decorate(function: F) -> F:
        dispatcher = numba.njit(**options)(function)
        folder = find_cache_folder() if cache and not config.DISABLE_JIT else None
        if folder is not None:
            before, config.CACHE_DIR = config.CACHE_DIR, folder
            try:
                # The same as `enable_caching`; numba has no public way to name another cache class.
                dispatcher._cache = _tolerant_cache_class()(function)
            finally:
                config.CACHE_DIR = before
        kernel: F = dispatcher
        return kernel

    return decorate


@lru_cache(maxsize=1)
def find_cache_folder(package: Path = Path(__file__).parent) -> str | None:
    """Return numba's cache folder: '' for numba's default beside each module, None if no folder is writable.

    The candidates are NUMBA_CACHE_DIR, the folder of the kernels, and `numba` in the folder of CFLIGHTNING_CACHE or in
    the user's cache folder. numba's own default would be a folder named `~` if the home directory is unknown.

    Args:
        package: Folder of the kernels.
    """
    numba = import_module("numba")
    configured = str(numba.config.CACHE_DIR or "")
    if configured:
        candidates = [(configured, Path(configured))]
    else:
        user = user_cache_folder()
        candidates = [("", package / "__pycache__"), *([(str(user), user)] if user is not None else [])]
    for name, path in candidates:
        try:
            path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path) as file:
                file.write(bytes(PROBE_BYTES))
        except OSError as error:
            log.debug("no compiled code can be cached in %s: %s", path, error)
        else:
            return name
    log.info("compiled code cannot be cached (no writable folder): each run compiles again; set NUMBA_CACHE_DIR")
    return None


def user_cache_folder() -> Path | None:
    """Return `numba` in the project's cache folder, or None without a home directory."""
    for variable, parts in (("CFLIGHTNING_CACHE", ()), ("XDG_CACHE_HOME", ("cflightning",))):
        if (folder := os.environ.get(variable)) and os.path.isabs(folder):
            return Path(folder, *parts, "numba")
    home = os.path.expanduser("~")  # unchanged if the home directory is unknown, / if HOME is empty
    known = os.path.isabs(home) and os.path.isdir(home) and home != os.sep
    return Path(home, ".cache", "cflightning", "numba") if known else None


@lru_cache(maxsize=1)
def _tolerant_cache_class() -> Callable[[Callable[..., object]], object]:
    from numba.core.caching import FunctionCache

    class TolerantCache(FunctionCache):
        """numba's cache of a function, except that damaged files count as missing and a full disk disables it."""

        def load_overload(self, sig: object, target_context: object) -> object:
            """Return the compiled function, or None if it must be compiled."""
            try:
                return super().load_overload(sig, target_context)
            except Exception as error:  # unpickling damaged bytes fails in many ways
                log.info("cached code of %s cannot be read (%s): compiled again", self._name, type(error).__name__)
                try:
                    self.flush()
                except OSError:
                    self.disable()
                return None

        def save_overload(self, sig: object, data: object) -> None:
            """Store a compiled function, if the disk has space."""
            try:
                super().save_overload(sig, data)
            except OSError as error:
                log.info("compiled code cannot be cached in %s (%s)", self.cache_path, error.strerror)
                self.disable()

    return TolerantCache
