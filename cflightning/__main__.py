"""The front door: ``python -m cflightning COMMAND``.

Each command's package is imported when the command is given, so that ``--help`` does not wait for torch.
"""

import atexit
import gc
import os
import re
import sys
import time

_STARTED = time.perf_counter()

HELP = """\
usage: python -m cflightning COMMAND [options]

From a table of who rated what to recommendations in production.

training (LightningCLI: every option can also stand in a YAML file, --config FILE):
  fit        train, test the best checkpoint, write RUN/metrics.json
  validate   measure a checkpoint on the validation part
  test       measure a checkpoint on the test part
  predict    score every row of a table with a checkpoint
  kfold      fit on every fold, and with several seeds: mean and standard deviation of every figure
  tune       search for the settings with the least error on a validation slice
serving:
  export     turn a run or checkpoint into a bundle for onnxruntime
  (then, on a machine without torch: python -m cflightning_serve --help)

  --version  print the version
  --help     this text; COMMAND --help for the options of one, which names the help of every group

examples:
  python -m cflightning fit                                   MovieLens small, defaults
  python -m cflightning fit --data.path ratings.csv           any table with user, item and rating columns
  python -m cflightning fit --config configs/ml-100k.yaml --data.path ml-100k.zip
  python -m cflightning kfold --data.path ratings.csv --folds 5
  python -m cflightning tune --data.path ratings.csv --trials 30
  python -m cflightning export runs/version_0 bundle
"""
TRAINING = ("fit", "validate", "test", "predict")


def join_lists(args: list[str]) -> list[str]:
    """Write `--data.missing -1,99` as `--data.missing=-1,99`.

    Argparse takes a list that begins with a minus for another option.

    Args:
        args: command-line arguments.
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
        Exit status: 0; 2 for a mistake that the user can put right; 130 after Ctrl+C, 143 after SIGTERM;
        1 where another process of the same training failed or was lost.
    """
    from cflightning.cli.streams import open_standard_streams

    open_standard_streams()
    if args is None:
        sys.argv[1:] = join_lists(sys.argv[1:])  # the parser reads it again
        given, args = None, sys.argv[1:]
    else:
        given = args = join_lists(args)
    if args[:1] in (["--version"], ["-V"]):
        from cflightning import __version__

        print(__version__)
        return 0
    if not args or args[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0 if args else 2
    from cflightning.cli.stopping import INTERRUPTED, Stopped, stoppable

    try:
        with stoppable():
            return _help(args) if _asks_for_help(args) else _run(args, given)
    except KeyboardInterrupt as error:
        line, status = (error.line, error.status) if isinstance(error, Stopped) else ("stopped", INTERRUPTED)
        if line:
            print(line, file=sys.stderr)
        return status


def _asks_for_help(args: list[str]) -> bool:
    """Whether what is asked for is help that jsonargparse would give on a thousand lines, or not at all."""
    from cflightning.cli.command_help import GROUPS

    kinds = {"-h", "--help", "--help=all", *(f"--{group}.help" for group in GROUPS)}
    return args[0] in TRAINING and not kinds.isdisjoint(args[1:])


def _help(args: list[str]) -> int:
    """Print the help of a training command, or of a group of its options."""
    from cflightning.cli.command_help import GROUPS, group_help, short_help

    group = next((name for name in GROUPS if f"--{name}.help" in args), None)
    if group is None and "--help=all" not in args:
        print(short_help(args[0]), end="")
        return 0
    import contextlib
    import io

    from cflightning.cli.fit import main as training

    whole = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(whole):
        training([args[0], "--help"])
    print(group_help(whole.getvalue(), group) if group else whole.getvalue(), end="")
    return 0


def _run(args: list[str], given: list[str] | None) -> int:
    """Run one command; see `main`."""
    from cflightning.errors import CFLightningError, ProcessError

    try:
        if args[0] == "export":
            from cflightning_export.cli import main as export

            status: int = export(args[1:])
            return status
        if args[0] in (*TRAINING, "kfold", "tune") or args[0].startswith("-"):
            # Read before the imports, which take seconds.
            if args[0] == "kfold":
                from cflightning.cli.kfold.options import parse

                of_folds = parse(args[1:])
            elif args[0] == "tune":
                from cflightning.cli.tune.options import parse as parse_search

                of_search = parse_search(args[1:])
            # Read when torch loads its threads. Steps are short, and threads spin while they wait for each other: on a
            # busy machine that made a fit 30 times slower. A short spin, then sleep, is safe there and costs about a
            # fifth of the speed on a quiet one, where sleeping at once costs a third. (libgomp, torch's on Linux.)
            if "OMP_WAIT_POLICY" not in os.environ:
                os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
                os.environ.setdefault("GOMP_SPINCOUNT", "2000")
            # Importing torch and Lightning makes millions of objects that stay: looking for garbage among them, while
            # they are made and at the end, costs a quarter of the time from typing to result.
            gc.disable()
            from cflightning.cli.fit import main as training

            gc.freeze()
            gc.enable()
            if "triton" in sys.modules:  # its bindings take what is not collected in the end for leaks, and say so
                atexit.register(gc.unfreeze)
            if args[0] == "kfold":
                from cflightning.cli.kfold.run import run_folds

                run_folds(*of_folds, started=_STARTED)
            elif args[0] == "tune":
                from cflightning.cli.tune.search import run_search

                return run_search(*of_search, started=_STARTED)
            else:
                training(given, started=_STARTED)  # None: Lightning warns when the process has arguments too
            return 0
    except CFLightningError as error:
        if not error.told:
            print(f"cflightning: {error}", file=sys.stderr)
        return 1 if isinstance(error, ProcessError) else 2
    except Exception as error:
        from cflightning.cli.failures import resource_error

        failure = resource_error(error)
        if failure is not None:
            error = failure
        elif type(error).__name__ != "MisconfigurationException":  # Lightning's; imported only where it can be raised
            raise
        print(f"cflightning: {error}", file=sys.stderr)
        return 2
    print(f"cflightning: no command {args[0]!r}; python -m cflightning --help lists them", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
