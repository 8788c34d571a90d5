"""The command line: ``python -m cflightning_serve score|recommend|similar|fold-in|explain|batch|info|http BUNDLE``."""

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

from cflightning_serve import __version__
from cflightning_serve.bundle.manifest import Manifest
from cflightning_serve.bundle.trust import add_trust_options, trust_of
from cflightning_serve.cli.batch_command import batch
from cflightning_serve.cli.commands import Answer, recommend, score, similar
from cflightning_serve.cli.fold_in_commands import explain, fold_in
from cflightning_serve.cli.info import info
from cflightning_serve.cli.streams import open_standard_streams
from cflightning_serve.errors import BundleError, InputError, ServeError
from cflightning_serve.http import cli as http
from cflightning_serve.scorer import Scorer

_PROGRAM = "cflightning_serve"
_WISHES = ("exclude_seen", "allow", "deny", "categories", "min_count", "diversity")
"""Options of `recommend` that are arguments of ``Scorer.recommend`` as well."""
_EXAMPLES = """examples:
  python -m cflightning_serve recommend BUNDLE --user 42 --k 10
  python -m cflightning_serve recommend BUNDLE --user=-5ccd --user=-x1   (ids that begin with -)
  python -m cflightning_serve score BUNDLE --user 42 --item 1193 661
  python -m cflightning_serve score BUNDLE --pairs pairs.csv --json
  python -m cflightning_serve similar BUNDLE --item 1193
  python -m cflightning_serve fold-in BUNDLE --ratings 1193:5,661:4
  python -m cflightning_serve explain BUNDLE --item 50 --ratings 1193:5,661:4
  python -m cflightning_serve batch BUNDLE --k 100 --out lists.csv
  python -m cflightning_serve info BUNDLE
  python -m cflightning_serve http BUNDLE --port 8000

exit codes: 0 answered, 1 the bundle is at fault, 2 the question is, 130 stopped by Ctrl+C
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say it in one line, as every other error."""
        if re.search(r"expected .*one argument|unrecognized arguments: -[^-]", message):
            message += "; an id that begins with - is given as --user=-5ccd, several one after the other"
        self.exit(2, f"{_PROGRAM}: {message}; see {self.prog} --help\n")


def main(args: Sequence[str] | None = None) -> int:
    """Answer one question from the command line.

    Args:
        args: the words after the program's name; those of the process when not given.

    Returns:
        The exit code: 0 answered, 1 the bundle is at fault, 2 the question is, 130 stopped by Ctrl+C.
    """
    open_standard_streams()
    options = _parser().parse_args(args)
    try:
        if options.command == "http":
            http.run(options)
            return 0
        answer = _ask(options)
        for note in answer.notes if not options.json else ():
            _say(note)
        if options.json:
            print(json.dumps(answer.document, indent=2))  # ASCII: any terminal and pipe can carry it
        else:
            print(_for_terminal(answer.text))
        sys.stdout.flush()
    except ServeError as error:
        _say(str(error))
        return 1 if isinstance(error, BundleError) else 2
    except KeyboardInterrupt:
        again = "; the same command goes on where it was" if options.command == "batch" else ""
        _say(f"stopped{again}")
        return 130  # as a shell has it
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python tries once more at its end
        if not isinstance(error, BrokenPipeError):  # the reader has seen enough, as `head` has
            _say(f"the answer cannot be written: {error.strerror}")
            return 1
    return 0


def _say(text: str) -> None:
    """One line on standard error, where somebody reads it."""
    with suppress(OSError):
        print(f"{_PROGRAM}: {' '.join(text.split())}", file=sys.stderr)


def _ask(options: argparse.Namespace) -> Answer:
    if options.command == "info":
        manifest = Manifest.read(options.bundle, trust_of(options))
        manifest.verify(digests=options.verify)
        return info(manifest)
    if options.command == "score" and not (
        (options.user is not None) == (options.item is not None) == (options.pairs is None)
    ):
        raise InputError("score: needs --user with --item, or --pairs alone")
    # A batch has blocks of users for its threads.
    threads = 1 if options.command == "batch" else options.threads
    scorer = Scorer.load(
        options.bundle, verify=options.verify, threads=threads, mapped=options.mapped, trust=trust_of(options)
    )
    if options.command == "score":
        return score(scorer, options.user, options.item, options.pairs)
    if options.command == "fold-in":
        return fold_in(scorer, options.ratings, options.liked, options.k, options.exclude, options.item)
    if options.command == "explain":
        return explain(scorer, options.user, options.item, options.ratings, options.liked)
    if options.command == "recommend":
        wishes = {name: getattr(options, name) for name in _WISHES}
        return recommend(scorer, options.user, options.k, options.exclude, wishes)
    if options.command == "batch":
        return batch(scorer, options)
    return similar(scorer, options.item, options.k)


def _for_terminal(text: str) -> str:
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


def _parser() -> argparse.ArgumentParser:
    shown = argparse.RawDescriptionHelpFormatter
    parser = _Parser(
        prog=f"python -m {_PROGRAM}",
        description="Answers from a bundle that `python -m cflightning export` wrote.",
        epilog=_EXAMPLES,
        formatter_class=shown,
    )
    parser.add_argument("--version", action="version", version=f"{_PROGRAM} {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, summary: str, example: str, **more: Any) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=f"example:\n  python -m {_PROGRAM} {name} {example}",
            formatter_class=shown,
            **more,
        )
        sub.add_argument("bundle", metavar="BUNDLE", help="folder of the bundle")
        if name != "http":
            sub.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
        sub.add_argument("--no-verify", dest="verify", action="store_false", help="do not compare the files' digests")
        add_trust_options(sub)
        if name != "info":
            sub.add_argument(
                "--map-weights",
                dest="mapped",
                action="store_true",
                help="map the tables from the folder, shared by processes, where nobody changes files in place",
            )
        return sub

    score_ = command(
        "score", "predict the ratings (or choices) of (user, item) pairs", "BUNDLE --user 42 --item 1193 661"
    )
    score_.add_argument("--user", metavar="ID", help="user of every pair")
    score_.add_argument("--item", metavar="ID", nargs="+", action="extend", help="items to score for the user")
    score_.add_argument("--pairs", metavar="FILE", help="CSV with the columns user and item; - reads standard input")
    recommend_ = command("recommend", "list the best items for a user", "BUNDLE --user 42 --k 10 --exclude 1193 661")
    recommend_.add_argument("--user", metavar="ID", nargs="+", action="extend", required=True, help="one or more users")
    recommend_.add_argument(
        "--exclude", metavar="ID", nargs="+", action="extend", default=[], help="items to leave out, for every user"
    )
    recommend_.add_argument("--allow", metavar="ID", nargs="+", action="extend", help="only these items")
    recommend_.add_argument("--deny", metavar="ID", nargs="+", action="extend", help="none of these items")
    recommend_.add_argument(
        "--category", dest="categories", metavar="NAME", nargs="+", action="extend", help="only items of any of them"
    )
    recommend_.add_argument("--min-count", metavar="N", type=int, help="only items with N training rows or more")
    recommend_.add_argument(
        "--diversity", metavar="D", type=float, default=0.0, help="0 lists the highest scores (default), 1 what differs"
    )
    batch_ = command("batch", "write the best items of all users", "BUNDLE --k 100 --out lists.csv --shard 3/16")
    batch_.add_argument("--out", metavar="FILE", required=True, help="file to write: .csv, or .parquet (needs pyarrow)")
    batch_.add_argument("--users", metavar="FILE", help="CSV with the column user (default: all known users)")
    batch_.add_argument(
        "--shard", metavar="N/OF", help="of OF equal parts of the users the N-th alone, in its own file"
    )
    for sub in (recommend_, batch_):
        sub.add_argument(
            "--exclude-seen",
            action=argparse.BooleanOptionalAction,
            help="leave out the items of which the table had a row of the user (default: where the bundle has them)",
        )
    similar_ = command("similar", "list the items most like an item", "BUNDLE --item 1193 --k 10")
    similar_.add_argument("--item", metavar="ID", nargs="+", action="extend", required=True, help="one or more items")
    fold_in_ = command(
        "fold-in", "list the best items for somebody who was not there in training", "BUNDLE --ratings 1193:5,661:4"
    )
    fold_in_.add_argument("--exclude", metavar="ID", nargs="+", action="extend", default=[], help="items to leave out")
    fold_in_.add_argument("--item", metavar="ID", nargs="+", action="extend", default=[], help="items to score, too")
    explain_ = command("explain", "say what each rated item adds to a score", "BUNDLE --item 50 --ratings 1193:5,661:4")
    explain_.add_argument("--item", metavar="ID", required=True, help="item to explain")
    explain_.add_argument("--user", metavar="ID", help="a known user; without ratings, by the history in the bundle")
    for sub, needed in ((fold_in_, True), (explain_, False)):
        given = sub.add_mutually_exclusive_group(required=needed)
        given.add_argument("--ratings", metavar="ITEM:RATING,...", help="what the user has rated")
        given.add_argument("--liked", metavar="ID", nargs="+", action="extend", help="or only likes")
    command("info", "say what a bundle holds and whether it is intact", "BUNDLE")
    http.add_options(command("http", "answer over HTTP", "BUNDLE --port 8000"))
    for sub in (recommend_, similar_, fold_in_, batch_):
        sub.add_argument("--k", metavar="N", type=int, default=10, help="how many (default: 10)")
    for sub in (score_, recommend_, similar_, fold_in_, explain_, batch_):
        sub.add_argument("--threads", metavar="N", type=int, default=1, help="threads of onnxruntime (default: 1)")
    return parser
