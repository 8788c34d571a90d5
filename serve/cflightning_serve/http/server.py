"""Running the application: one process, one event loop."""

from __future__ import annotations

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
from cflightning_serve.http.middleware.connection import connections
from cflightning_serve.http.serving.bundle import State, Watcher
from cflightning_serve.http.serving.memory import keep_memory_flat
from cflightning_serve.http.settings import Settings

try:
    import resource
except ModuleNotFoundError:  # pragma: no cover  # not on Windows
    resource = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

_OTHER_FILES = 128
"""Files beside the connections: what listens, libraries, the bundle, and a new one beside it."""
_SWITCH = 0.0005
"""Seconds that a thread may keep the interpreter where another one waits, a tenth of Python's own: the event loop waits
for it several times in each request while threads compute."""
_GRACE = 30
"""Seconds that requests in work have at shutdown."""


def serve(settings: Settings, host: str, port: int) -> None:
    """Serve a bundle until SIGINT or SIGTERM; requests in work are finished first.

    SIGHUP reads the keys again and looks for a new bundle.

    Args:
        settings: of the server.
        host: address to listen at.
        port: 0 takes a free one.

    Raises:
        BundleError: the bundle cannot be used.
        InputError: the address cannot be listened at.
    """
    keep_memory_flat()
    sys.setswitchinterval(_SWITCH)
    disable_created_metrics()  # type: ignore[no-untyped-call]  # a line of noise for each line of sense
    state = State(settings)
    watcher = Watcher(state)
    config = uvicorn.Config(
        create_app(state, watcher),
        loop="uvloop",
        http=connections(settings.limits),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # whom a client says to be is nothing that we act upon
        timeout_graceful_shutdown=_GRACE,
    )
    _allow_files(settings.limits.connections)
    with _listen(host, port) as listener:
        if hasattr(signal, "SIGHUP"):
            signal.signal(signal.SIGHUP, lambda *_: threading.Thread(target=_hang_up, args=(settings, watcher)).start())
        gc.collect()
        gc.freeze()  # what is loaded by now stays; no later collection walks through it
        shown = f"[{host}]" if ":" in host else host
        log.info("serving bundle %s at http://%s:%d", state.served.version, shown, listener.getsockname()[1])
        if not settings.keys and not _is_loopback(listener.getsockname()[0]):
            log.warning("anybody who reaches %s may ask: give --api-key-file, or listen at 127.0.0.1", shown)
        with suppress(KeyboardInterrupt):  # which uvicorn raises again, when all is finished
            uvicorn.Server(config).run(sockets=[listener])
    if state.is_left_with_work():  # which Python's own end would run into
        log.warning("a load that was given up has not ended; it ends with the process")
        logging.shutdown()
        os._exit(0)


def _hang_up(settings: Settings, watcher: Watcher) -> None:
    """Read the keys again and look for a new bundle; in a thread, since a signal's handler may not log."""
    try:
        settings.keys.reread()
    except InputError as error:
        log.error("kept the API keys: %s", error)
    watcher.wake()


def _allow_files(connections: int) -> None:
    """Raise the limit of open files to what the connections need, as far as the system lets it be raised."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        if most < needed:
            log.warning(
                "--max-connections %d needs %d open files, the system allows %d: raise ulimit -n, or lower it",
                connections,
                needed,
                most,
            )


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port < 1 << 16:
        raise InputError(f"http: port must be from 0 to 65535, got {port}")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, UnicodeError) as error:
        number = getattr(error, "errno", None)  # a name that cannot be looked up has one of its own kind
        reason = os.strerror(number) if isinstance(number, int) and number in errno.errorcode else error
        raise InputError(f"http: cannot listen at {host}:{port}: {reason}; choose another --host or --port") from error


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback
