"""The command line: ``python -m cflightning COMMAND``.

The module of a command is imported when the command is given, so that ``--help`` does not wait for torch.
"""

from __future__ import annotations

import re
import sys
import time
from importlib import import_module
from typing import NamedTuple

_STARTED = time.perf_counter()


class Command(NamedTuple):
    """A command.

    Attributes:
        module: Module of its ``run(args: list[str], started: float) -> int``, which returns the exit status; `args[0]`
            is the command's name, and `started` the `time.perf_counter()` at the start of the process.
        summary: One line of the help text.
    """

    module: str
    summary: str


TRAINING = {
    "fit": Command("cflightning.cli.training.command", "train, test the best checkpoint, write RUN/metrics.json"),
    "validate": Command("cflightning.cli.training.command", "measure a checkpoint on the validation part"),
    "test": Command("cflightning.cli.training.command", "measure a checkpoint on the test part"),
    "predict": Command("cflightning.cli.training.command", "score every row of a table with a checkpoint"),
    "kfold": Command("cflightning.cli.kfold.command", "cross-validation: fit every fold, with one or several seeds"),
    "tune": Command("cflightning.cli.tune.command", "search for the settings with the best validation metric"),
}
SERVING = {
    "export": Command("cflightning.cli.export", "write a run or checkpoint as a bundle for onnxruntime"),
}
COMMANDS = TRAINING | SERVING
HELP = """\
usage: python -m cflightning COMMAND [options]

Collaborative filtering: from a table of ratings to recommendations in production.

training (LightningCLI: options can also be given in a YAML file, --config FILE):
{training}
serving:
{serving}
  (then, on a machine without torch: python -m cflightning_serve --help)

  --version  print the version
  --help     print this text; COMMAND --help prints the options of a command

examples:
  python -m cflightning fit                                   MovieLens small, defaults
  python -m cflightning fit --data.path ratings.csv           any table with user, item and rating columns
  python -m cflightning fit --config configs/ml-100k.yaml --data.path ml-100k.zip
  python -m cflightning kfold --data.path ratings.csv --folds 5
  python -m cflightning tune --data.path ratings.csv --trials 30
  python -m cflightning export runs/version_0 bundle
"""


def help_text() -> str:
    """Return the help of the command line, with a line for each command."""
    training, serving = (
        "\n".join(f"  {name:<10} {command.summary}" for name, command in commands.items())
        for commands in (TRAINING, SERVING)
    )
    return HELP.format(training=training, serving=serving)


def join_lists(args: list[str]) -> list[str]:
    """Write `--data.table.missing -1,99` as `--data.table.missing=-1,99`.

    Argparse takes a list that begins with a minus for an option.

    Args:
        args: Command-line arguments.
    """
    joined: list[str] = []
    for text in args:
        before = joined[-1] if joined else ""
        if re.fullmatch(r"-[0-9.]+(,[^,]*)+", text) and before.startswith("--") and "=" not in before:
            joined[-1] = f"{before}={text}"
        else:
            joined.append(text)
    return joined


def main(args: list[str] | None = None) -> int:
    """Run one command.

    Args:
        args: Command-line arguments without the program; None for those of the process.

    Returns:
        Exit status: 0; 2 for a mistake that the user can correct; 130 after Ctrl+C, 143 after SIGTERM; 1 if another
        process of the same training failed or was lost.
    """
    from cflightning.cli.streams import open_standard_streams

    open_standard_streams()
    args = join_lists(sys.argv[1:] if args is None else args)
    if args[:1] in (["--version"], ["-V"]):
        from cflightning import __version__

        print(__version__)
        return 0
    if not args or args[0] in ("-h", "--help"):
        print(help_text(), end="")
        return 0 if args else 2
    from cflightning.cli.stopping import INTERRUPTED, Stopped, stoppable

    try:
        with stoppable():
            return _run(args)
    except KeyboardInterrupt as error:
        line, status = (error.line, error.status) if isinstance(error, Stopped) else ("stopped", INTERRUPTED)
        if line:
            print(line, file=sys.stderr)
        return status


def _run(args: list[str]) -> int:
    """Run one command; print an error that the user can correct as one line."""
    from cflightning.errors import CFLightningError, ProcessError

    if args[0] not in COMMANDS:
        print(f"cflightning: no command {args[0]!r}; python -m cflightning --help lists them", file=sys.stderr)
        return 2
    try:
        status: int = import_module(COMMANDS[args[0]].module).run(args, _STARTED)
        return status
    except CFLightningError as error:
        if not error.reported:
            print(f"cflightning: {error}", file=sys.stderr)
        return 1 if isinstance(error, ProcessError) else 2
    except Exception as error:
        from cflightning.cli.failures import resource_error

        failure = resource_error(error)
        # Lightning's class, by name, since importing Lightning takes seconds.
        if failure is None and type(error).__name__ != "MisconfigurationException":
            raise
        print(f"cflightning: {failure or error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
