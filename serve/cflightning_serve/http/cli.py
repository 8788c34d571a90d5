"""The subcommand ``python -m cflightning_serve http``."""

from __future__ import annotations

import argparse
from pathlib import Path

from cflightning_serve.bundle.ids import check_positive_integer
from cflightning_serve.bundle.trust import Trust
from cflightning_serve.errors import InputError
from cflightning_serve.http.api_keys import ApiKeys
from cflightning_serve.http.log_format import configure_logging
from cflightning_serve.http.settings import Limits, Settings


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the server."""
    limits, settings = Limits(), Settings(Path())

    def number(flag: str, default: float, text: str) -> None:
        parser.add_argument(flag, metavar="N", type=type(default), default=default, help=f"{text} (default: {default})")

    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    number("--port", 8000, "port to listen on; 0 chooses a free one")
    parser.add_argument("--api-key-file", metavar="FILE", help="API keys, one a line; without it, none is needed")
    parser.add_argument(
        "--allow-host",
        metavar="NAME",
        action="append",
        default=[],
        help="further host name of this server, *.example.com for all subdomains, * for any; may be repeated "
        "(default: names of loopback, and the address that a client connects to)",
    )
    parser.add_argument(
        "--cors-origin",
        metavar="ORIGIN",
        action="append",
        default=[],
        help="origin of web pages that may send requests, such as https://shop.example, * for any; may be repeated "
        "(default: none)",
    )
    parser.add_argument(
        "--name", default=settings.name, help=f"name of the model in /v2/models (default: {settings.name})"
    )
    number("--max-body", limits.body, "bytes of a request body")
    number("--max-ids", limits.ids, "ids in one list of a request")
    number("--max-k", limits.k, "length of a top-k list")
    number("--max-seconds", limits.seconds, "deadline of a request in seconds")
    number("--max-concurrent", limits.concurrent, "requests in progress")
    number("--max-connections", limits.connections, "open connections")
    number("--max-memory", limits.memory, "bytes of large requests and responses in memory")
    number("--poll", settings.poll, "seconds between two checks for a new bundle; 0 checks only at SIGHUP")
    number("--load-seconds", settings.load_seconds, "timeout of loading a bundle in seconds")
    number("--threads", settings.threads, "threads of onnxruntime for one request")


def run(options: argparse.Namespace) -> None:
    """Serve until the process is asked to stop.

    Raises:
        BundleError: the bundle cannot be used.
        InputError: an option is invalid, or the extra is not installed.
    """
    settings = Settings(
        bundle=Path(options.bundle),
        name=options.name,
        keys=ApiKeys(options.api_key_file),
        limits=Limits(
            body=options.max_body,
            ids=options.max_ids,
            k=options.max_k,
            seconds=options.max_seconds,
            concurrent=options.max_concurrent,
            connections=options.max_connections,
            memory=options.max_memory,
        ),
        poll=options.poll,
        threads=check_positive_integer("threads", options.threads),
        verify=options.verify,
        mapped=options.mapped,
        trust=Trust.parse(options.require_digest, options.trusted_key),
        load_seconds=options.load_seconds,
        hosts=tuple(options.allow_host),
        origins=tuple(options.cors_origin),
    )
    try:
        from cflightning_serve.http.server import serve
    except ModuleNotFoundError as error:
        raise InputError(f"http: needs {error.name}; pip install 'cflightning-serve[http]'") from error
    configure_logging()
    serve(settings, options.host, options.port)
