"""The interface of a command, and the options that several commands share.

Each module of ``cli/commands/`` defines one command as its constant ``COMMAND``; the command line finds them there.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cflightning_serve.bundle.trust import Trust
from cflightning_serve.scorer import Scorer


class Output(NamedTuple):
    """The output of a command."""

    text: str
    """For people."""
    document: Mapping[str, object]
    """For ``--json``: JSON values, with the same keys for every bundle."""
    notes: Sequence[str] = ()
    """Warnings beside the text, for standard error."""


@dataclass(frozen=True)
class Command:
    """A command of the command line."""

    name: str
    summary: str
    """Imperative sentence without a full stop, for ``--help``."""
    example: str
    """Arguments of an example, for ``--help``."""
    add_options: Callable[[argparse.ArgumentParser], None]
    """Adds options beside BUNDLE and those of :func:`add_verification_options`."""
    run: Callable[[argparse.Namespace], Output | None]
    """Runs the command; None if it has printed its output itself."""
    interrupted: str = "stopped"
    """Message after Ctrl+C."""


def add_verification_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how to verify the bundle."""
    parser.add_argument("--no-verify", dest="verify", action="store_false", help="do not compare the files' digests")
    parser.add_argument(
        "--require-digest", metavar="SHA256", help="required output of `sha256sum BUNDLE/manifest.json`"
    )
    parser.add_argument(
        "--trusted-key", metavar="FILE", help="Ed25519 public key (PEM) that must have signed manifest.json"
    )


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")


def add_mapping_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--map-weights``."""
    parser.add_argument(
        "--map-weights",
        dest="mapped",
        action="store_true",
        help="memory-map the tables, so that processes share them; the files must not be changed in place",
    )


def add_scorer_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of commands that load the whole bundle."""
    add_json_option(parser)
    add_mapping_option(parser)
    parser.add_argument("--threads", metavar="N", type=int, default=1, help="onnxruntime threads (default: 1)")


def add_k_option(parser: argparse.ArgumentParser, listed: str = "items") -> None:
    """Add ``--k``, the length of lists of items or users."""
    parser.add_argument("--k", metavar="N", type=int, default=10, help=f"number of {listed} (default: 10)")


def add_exclude_seen_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--[no-]exclude-seen``."""
    parser.add_argument(
        "--exclude-seen",
        action=argparse.BooleanOptionalAction,
        help="leave out the seen items of the user (default: yes if the bundle has them)",
    )


def add_rating_options(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Add ``--ratings`` and ``--liked``, which exclude each other."""
    group = parser.add_mutually_exclusive_group(required=required)
    group.add_argument("--ratings", metavar="ITEM:RATING,...", help="the user's ratings")
    group.add_argument(
        "--liked", metavar="ID", nargs="+", action="extend", help="the user's liked items, without ratings"
    )


def load_scorer(options: argparse.Namespace, threads: int | None = None) -> Scorer:
    """Load the bundle with the options of :func:`add_scorer_options`.

    Raises:
        BundleError: the bundle is invalid.
        InputError: an option is invalid.
    """
    return Scorer.load(
        options.bundle,
        verify=options.verify,
        threads=options.threads if threads is None else threads,
        mapped=options.mapped,
        trust=parse_trust(options),
    )


def parse_trust(options: argparse.Namespace) -> Trust | None:
    """Parse the options on which bundles are trusted.

    Raises:
        InputError: the digest is not one, or the key cannot be read.
    """
    return Trust.parse(options.require_digest, options.trusted_key)
