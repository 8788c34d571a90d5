"""The words after ``python -m cflightning_serve http``."""

from __future__ import annotations

import argparse
from pathlib import Path

from cflightning_serve.bundle.ids import check_positive_integer
from cflightning_serve.bundle.trust import trust_of
from cflightning_serve.errors import InputError
from cflightning_serve.http.keys import Keys
from cflightning_serve.http.log_lines import set_up
from cflightning_serve.http.settings import Limits, Settings


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the server."""
    limits, settings = Limits(), Settings(Path())

    def number(flag: str, default: float, text: str) -> None:
        parser.add_argument(flag, metavar="N", type=type(default), default=default, help=f"{text} (default: {default})")

    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1)")
    number("--port", 8000, "port to listen at; 0 takes a free one")
    parser.add_argument("--api-key-file", metavar="FILE", help="API keys, one a line; without it anybody may ask")
    parser.add_argument(
        "--allow-host",
        metavar="NAME",
        action="append",
        default=[],
        help="another name of this server, *.example.com for all below, * for any; may be repeated "
        "(default: names of loopback, and the address that a client connects to)",
    )
    parser.add_argument(
        "--cors-origin",
        metavar="ORIGIN",
        action="append",
        default=[],
        help="let pages of https://shop.example ask, * for any; may be repeated (default: none)",
    )
    parser.add_argument("--name", default=settings.name, help=f"name of the model (default: {settings.name})")
    number("--max-body", limits.body, "bytes of a request")
    number("--max-ids", limits.ids, "ids in one list of a request")
    number("--max-k", limits.k, "items in an answer's list")
    number("--max-seconds", limits.seconds, "seconds for a request")
    number("--max-concurrent", limits.concurrent, "requests in work at once")
    number("--max-connections", limits.connections, "connections at once")
    number("--max-held", limits.held, "bytes of large requests and answers that are held at once")
    number("--poll", settings.poll, "seconds between two looks for a new bundle; 0 waits for SIGHUP")
    number("--load-seconds", settings.load_seconds, "seconds for loading a bundle, which is given up after that")
    number("--threads", settings.threads, "threads of onnxruntime for one request")


def run(options: argparse.Namespace) -> None:
    """Serve until told to stop.

    Raises:
        BundleError: the bundle cannot be used.
        InputError: an option makes no sense, or the extra is not installed.
    """
    settings = Settings(
        bundle=Path(options.bundle),
        name=options.name,
        keys=Keys(options.api_key_file),
        limits=Limits(
            body=options.max_body,
            ids=options.max_ids,
            k=options.max_k,
            seconds=options.max_seconds,
            concurrent=options.max_concurrent,
            connections=options.max_connections,
            held=options.max_held,
        ),
        poll=options.poll,
        threads=check_positive_integer("threads", options.threads),
        verify=options.verify,
        mapped=options.mapped,
        trust=trust_of(options),
        load_seconds=options.load_seconds,
        hosts=tuple(options.allow_host),
        origins=tuple(options.cors_origin),
    )
    try:
        from cflightning_serve.http.server import serve
    except ModuleNotFoundError as error:
        raise InputError(f"http: needs {error.name}; pip install 'cflightning-serve[http]'") from error
    set_up()
    serve(settings, options.host, options.port)
