"""Running the application: one process, one event loop."""

from __future__ import annotations

import errno
import gc
import ipaddress
import logging
import os
import signal
import socket
from contextlib import suppress

import uvicorn
from prometheus_client import disable_created_metrics

from cflightning_serve.errors import InputError
from cflightning_serve.http.app import create_app
from cflightning_serve.http.connection import connections
from cflightning_serve.http.settings import Settings
from cflightning_serve.http.state import State, Watcher

log = logging.getLogger(__name__)

_GRACE = 30
"""Seconds that requests in work have at shutdown."""


def serve(settings: Settings, host: str, port: int) -> None:
    """Serve a bundle until SIGINT or SIGTERM; requests in work are finished first. SIGHUP looks for a new bundle.

    Args:
        settings: of the server.
        host: address to listen at.
        port: 0 takes a free one.

    Raises:
        BundleError: the bundle cannot be used.
        InputError: the address cannot be listened at.
    """
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
        timeout_graceful_shutdown=_GRACE,
    )
    with _listen(host, port) as listener:
        if hasattr(signal, "SIGHUP"):
            signal.signal(signal.SIGHUP, lambda *_: watcher.wake())
        gc.collect()
        gc.freeze()  # what is loaded by now stays; no later collection walks through it
        shown = f"[{host}]" if ":" in host else host
        log.info("serving bundle %s at http://%s:%d", state.served.version, shown, listener.getsockname()[1])
        if not settings.keys and not _is_loopback(listener.getsockname()[0]):
            log.warning("anybody who reaches %s may ask: give --api-key-file, or listen at 127.0.0.1", shown)
        with suppress(KeyboardInterrupt):  # which uvicorn raises again, when all is finished
            uvicorn.Server(config).run(sockets=[listener])


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
