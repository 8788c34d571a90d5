"""``http``: serve a bundle over HTTP."""

import argparse

from cflightning_serve.cli.command import Command, add_mapping_option
from cflightning_serve.http import cli


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the server."""
    add_mapping_option(parser)
    cli.add_options(parser)


COMMAND = Command("http", "serve a bundle over HTTP", "BUNDLE --port 8000", add_options, cli.run)
