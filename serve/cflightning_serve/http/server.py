"""The server process: socket, signals, memory, and the event loop that runs the application."""

from __future__ import annotations

import ctypes
import errno
import gc
import ipaddress
import logging
import os
import signal
import socket
import sys
import threading
from contextlib import suppress

import uvicorn
from prometheus_client import disable_created_metrics

from cflightning_serve.errors import InputError
from cflightning_serve.http.app import create_app
from cflightning_serve.http.connection.connection import connection_factory
from cflightning_serve.http.serving.state import BundleWatcher, ServerState
from cflightning_serve.http.settings import Settings

try:
    import resource
except ModuleNotFoundError:  # pragma: no cover  # not on Windows
    resource = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

_OTHER_FILES = 128
"""Open files besides the connections: listening socket, libraries, the bundle and its successor."""
_SWITCH_INTERVAL = 0.0005
"""Seconds after which Python may switch threads, a tenth of the default: while threads compute, the event loop waits
for a switch several times in each request."""
_SHUTDOWN_TIMEOUT = 30
"""Seconds that requests in progress have at shutdown."""
_MALLOC_ARENA_MAX, _MALLOC_MMAP_THRESHOLD = -8, -3
"""Parameters of glibc's ``mallopt``."""
_MAX_ARENAS = 2
_MMAP_THRESHOLD = 1 << 20
"""Bytes from which on an allocation is mapped separately and unmapped when freed."""


def serve(settings: Settings, host: str, port: int) -> None:
    """Serve a bundle until SIGINT or SIGTERM; requests in progress are finished first.

    SIGHUP reads the API keys again and checks for a new bundle.

    Args:
        settings: settings of the server.
        host: address to listen on.
        port: port to listen on; 0 chooses a free one.

    Raises:
        BundleError: the bundle cannot be used.
        InputError: the address cannot be listened on.
    """
    limit_freed_memory()
    sys.setswitchinterval(_SWITCH_INTERVAL)
    disable_created_metrics()  # type: ignore[no-untyped-call]
    state = ServerState(settings)
    watcher = BundleWatcher(state)
    config = uvicorn.Config(
        create_app(state, watcher),
        loop="uvloop",
        http=connection_factory(settings.limits),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nothing depends on the address that a proxy reports
        timeout_graceful_shutdown=_SHUTDOWN_TIMEOUT,
    )
    _allow_open_files(settings.limits.connections)
    with _listen(host, port) as listener:
        if hasattr(signal, "SIGHUP"):
            signal.signal(signal.SIGHUP, lambda *_: threading.Thread(target=_reload, args=(settings, watcher)).start())
        gc.collect()
        gc.freeze()  # later collections skip everything that is loaded now
        shown = f"[{host}]" if ":" in host else host
        log.info("serving bundle %s at http://%s:%d", state.bundle.version, shown, listener.getsockname()[1])
        if not settings.keys and not _is_loopback(listener.getsockname()[0]):
            log.warning(
                "any client that reaches %s can send requests: give --api-key-file, or listen on 127.0.0.1", shown
            )
        with suppress(KeyboardInterrupt):  # uvicorn raises it again after its shutdown
            uvicorn.Server(config).run(sockets=[listener])
    if state.abandoned_loads:  # Python's own exit would wait for their locks
        log.warning("a cancelled load is still running; it ends with the process")
        logging.shutdown()
        os._exit(0)


def limit_freed_memory() -> bool:
    """Make glibc return freed memory to the operating system.

    By default every thread gets a heap of its own, and the first large block that is freed raises the size up to which
    blocks come from these heaps, which a small block at the end keeps from shrinking. A server that loads bundles and
    writes large responses would grow to several times the memory it uses.

    Returns:
        Whether the C library has these parameters.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or Windows
        return False
    return bool(mallopt(_MALLOC_ARENA_MAX, _MAX_ARENAS) and mallopt(_MALLOC_MMAP_THRESHOLD, _MMAP_THRESHOLD))


def _reload(settings: Settings, watcher: BundleWatcher) -> None:
    """Read the API keys again and check for a new bundle; in a thread, since a signal handler must not log."""
    try:
        settings.keys.reload()
    except InputError as error:
        log.error("kept the API keys: %s", error)
    watcher.wake()


def _allow_open_files(connections: int) -> None:
    """Raise the limit of open files for a number of connections, as far as the system allows."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + _OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < needed:
        log.warning(
            "--max-connections %d needs %d open files, the system allows %d: raise ulimit -n, or lower it",
            connections,
            needed,
            allowed,
        )


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port < 1 << 16:
        raise InputError(f"http: port must be from 0 to 65535, got {port}")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, UnicodeError) as error:
        number = getattr(error, "errno", None)  # errors of name lookup have numbers of another kind
        reason = os.strerror(number) if isinstance(number, int) and number in errno.errorcode else error
        raise InputError(f"http: cannot listen on {host}:{port}: {reason}; choose another --host or --port") from error


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback
