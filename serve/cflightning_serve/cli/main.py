"""The main program: parses arguments, runs a command, prints its output and converts errors to exit codes."""

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from cflightning_serve import __version__
from cflightning_serve.cli.command import Command, add_verification_options
from cflightning_serve.cli.commands import find_commands
from cflightning_serve.errors import BundleError, ServeError

PROGRAM = "cflightning_serve"
EXIT_CODES = "exit codes: 0 success, 1 invalid bundle, 2 invalid request, 130 interrupted"
EPILOG = """\
An id that begins with - is given as --user=-5ccd, several as --user=-5ccd --user=-x1.
"""


def main(args: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        args: the command-line arguments; those of the process by default.

    Returns:
        The exit code: 0 success, 1 invalid bundle, 2 invalid request, 130 interrupted.
    """
    open_closed_streams()
    options = build_parser(find_commands()).parse_args(args)
    command: Command = options.command
    try:
        output = command.run(options)
        if output is not None:
            if options.json:
                print(json.dumps(output.document, indent=2))  # ASCII, which every terminal and pipe accepts
            else:
                for note in output.notes:
                    _print_error(note)
                encoding = sys.stdout.encoding or "utf-8"
                print(output.text.encode(encoding, "replace").decode(encoding))
            sys.stdout.flush()
    except ServeError as error:
        _print_error(str(error))
        return 1 if isinstance(error, BundleError) else 2
    except KeyboardInterrupt:
        _print_error(command.interrupted)
        return 130  # as shells return it
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python flushes once more at exit
        if not isinstance(error, BrokenPipeError):  # a reader such as `head` may end early
            _print_error(f"the output cannot be written: {error.strerror}")
            return 1
    return 0


def build_parser(commands: Sequence[Command]) -> argparse.ArgumentParser:
    """Build the parser of the command line from its commands."""
    examples = "\n".join(f"  python -m {PROGRAM} {command.name} {command.example}" for command in commands)
    parser = _Parser(
        prog=f"python -m {PROGRAM}",
        description="Scores and recommendations from a bundle that `python -m cflightning export` wrote.",
        epilog=f"examples:\n{examples}\n\n{EPILOG}\n{EXIT_CODES}\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    subparsers = parser.add_subparsers(dest="command_name", required=True, metavar="COMMAND")
    for command in commands:
        subparser = subparsers.add_parser(
            command.name,
            help=command.summary,
            description=f"{command.summary[0].upper()}{command.summary[1:]}.",
            epilog=f"example:\n  python -m {PROGRAM} {command.name} {command.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        subparser.add_argument("bundle", metavar="BUNDLE", help="folder of the bundle")
        command.add_options(subparser)
        add_verification_options(subparser)
        subparser.set_defaults(command=command)
    return parser


def open_closed_streams() -> None:
    """Open standard streams that the caller has closed, as daemons do, as the null device.

    Python sets such a stream to None, and the next file that is opened would get its descriptor: a library's output to
    standard error would be written into that file.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free descriptor, which is this one
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            # Never closed: it lives as long as the process.
            setattr(sys, name, open(number, mode, encoding="utf-8", errors="replace", closefd=False))  # noqa: SIM115


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Print the error in one line, as all other errors."""
        if re.search(r"expected .*one argument|unrecognized arguments: -[^-]", message):
            message += "; an id that begins with - is given as --user=-5ccd, several by repeating the option"
        self.exit(2, f"{PROGRAM}: {message}; see {self.prog} --help\n")


def _print_error(text: str) -> None:
    """Print one line to standard error."""
    with suppress(OSError):
        print(f"{PROGRAM}: {' '.join(text.split())}", file=sys.stderr)
