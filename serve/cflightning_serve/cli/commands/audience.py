"""``audience``: list the users for whom an item has the highest scores."""

import argparse

from cflightning_serve.bundle.ids import parse_id_texts
from cflightning_serve.cli.command import Command, Output, add_k_option, add_scorer_options, load_scorer
from cflightning_serve.cli.format import (
    format_titled_top_k_users,
    score_heading,
    title_in_parentheses,
    user_rows_to_json,
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--item", metavar="ID", nargs="+", action="extend", required=True, help="one item or several")
    parser.add_argument(
        "--exclude-seen",
        action=argparse.BooleanOptionalAction,
        help="leave out the users who have seen the item (default: yes if the bundle has the seen items)",
    )
    add_k_option(parser, "users")
    add_scorer_options(parser)


def run(options: argparse.Namespace) -> Output:
    """List the audience of each item.

    Raises:
        UnknownIdError: an item was not seen in training.
        InputError: an option or an id is invalid.
    """
    scorer = load_scorer(options)
    items = parse_id_texts(options.item, scorer.manifest.item_ids, "--item")
    top = scorer.audience(items, options.k, exclude_seen=options.exclude_seen)
    titles, unit = scorer.titles(items), scorer.manifest.units["recommend"]
    text = "\n\n".join(
        format_titled_top_k_users(f"item {item}{title_in_parentheses(title)}", users, score_heading(unit))
        for item, title, users in zip(items, titles, top, strict=True)
    )
    document = [
        {"item": item, "title": title, "users": user_rows_to_json(users, "score")}
        for item, title, users in zip(items, titles, top, strict=True)
    ]
    return Output(text, {"unit": unit, "items": document})


COMMAND = Command(
    "audience", "list the users for whom an item has the highest scores", "BUNDLE --item 1193 --k 10", add_options, run
)
