"""``score``: predict the scores of (user, item) pairs."""

import argparse

from cflightning_serve.bundle.ids import parse_id_texts
from cflightning_serve.cli.command import Command, Output, add_scorer_options, load_scorer
from cflightning_serve.cli.format import format_table, score_heading, unknown_ids_note
from cflightning_serve.cli.parse import read_ids
from cflightning_serve.errors import InputError
from cflightning_serve.inference.results import shortest_float


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--user", metavar="ID", help="user of every pair")
    parser.add_argument("--item", metavar="ID", nargs="+", action="extend", help="items of the pairs")
    parser.add_argument("--pairs", metavar="FILE", help="CSV file with the columns user and item; - for standard input")
    add_scorer_options(parser)


def run(options: argparse.Namespace) -> Output:
    """Score the items of one user, or the pairs of a CSV file.

    Raises:
        InputError: an option or an id is invalid, or the file cannot be read.
    """
    named = [options.user is not None, options.item is not None]
    if not all(named) if options.pairs is None else any(named):
        raise InputError("score: needs --user and --item, or only --pairs")
    scorer = load_scorer(options)
    manifest = scorer.manifest
    if options.pairs is None:
        items = parse_id_texts(options.item, manifest.item_ids, "--item")
        users = parse_id_texts([options.user], manifest.user_ids, "--user") * len(items)
    else:
        users, items = read_ids(options.pairs, {"user": manifest.user_ids, "item": manifest.item_ids})
    columns = zip(
        users,
        items,
        map(shortest_float, scorer.score(users, items)),
        scorer.knows_user(users).tolist(),
        scorer.knows_item(items).tolist(),
        scorer.titles(items),
        strict=True,
    )
    keys = ("user", "item", "score", "user_known", "item_known", "title")
    pairs = [dict(zip(keys, values, strict=True)) for values in columns]
    unit = manifest.units["score"]
    header = ("user", "item", score_heading(unit), "user known", "item known", "title")
    notes = [] if unit == "rating" else ["scores have no unit: only their order for one user has a meaning"]
    notes += unknown_ids_note(
        "user", [pair["user"] for pair in pairs if not pair["user_known"]], "scored as the average user"
    )
    notes += unknown_ids_note(
        "item",
        [pair["item"] for pair in pairs if not pair["item_known"]],
        "scored as the average item" if unit == "rating" else "the score has no meaning",
    )
    return Output(format_table(header, [tuple(pair.values()) for pair in pairs]), {"unit": unit, "pairs": pairs}, notes)


COMMAND = Command(
    "score",
    "predict ratings, or preferences without a unit, of (user, item) pairs",
    "BUNDLE --user 42 --item 1193 661",
    add_options,
    run,
)
