"""``similar``: list the items that are most similar to an item."""

import argparse

from cflightning_serve.bundle.ids import parse_id_texts
from cflightning_serve.cli.command import Command, Output, add_k_option, add_scorer_options, load_scorer
from cflightning_serve.cli.format import format_titled_top_k, item_rows, rows_to_json, title_in_parentheses


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--item", metavar="ID", nargs="+", action="extend", required=True, help="one item or several")
    add_k_option(parser)
    add_scorer_options(parser)


def run(options: argparse.Namespace) -> Output:
    """List the similar items of each item.

    Raises:
        UnknownIdError: an item was not seen in training.
        InputError: an option or an id is invalid.
    """
    scorer = load_scorer(options)
    items = parse_id_texts(options.item, scorer.manifest.item_ids, "--item")
    top = scorer.similar_items(items, options.k)
    titles = scorer.titles(items)
    rows = [item_rows(scorer, similar, cosines) for similar, cosines in top]
    text = "\n\n".join(
        format_titled_top_k(f"item {item}{title_in_parentheses(title)}", similar, "similarity")
        for item, title, similar in zip(items, titles, rows, strict=True)
    )
    document = [
        {"item": item, "title": title, "similar": rows_to_json(similar, "similarity")}
        for item, title, similar in zip(items, titles, rows, strict=True)
    ]
    return Output(text, {"items": document})


COMMAND = Command("similar", "list the items most similar to an item", "BUNDLE --item 1193 --k 10", add_options, run)
