"""``explain``: show the contribution of each rated item to a score."""

import argparse

from cflightning_serve.bundle.ids import parse_id_texts
from cflightning_serve.cli.command import Command, Output, add_rating_options, add_scorer_options, load_scorer
from cflightning_serve.cli.format import format_table, item_rows, rows_to_json, score_heading, title_in_parentheses
from cflightning_serve.cli.parse import parse_ratings


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--item", metavar="ID", required=True, help="item to explain")
    parser.add_argument("--user", metavar="ID", help="a known user; without ratings, the history in the bundle is used")
    add_rating_options(parser, required=False)
    add_scorer_options(parser)


def run(options: argparse.Namespace) -> Output:
    """Explain the score of one item.

    Raises:
        UnknownIdError: the user or the item was not seen in training.
        InputError: an option, an id or a rating is invalid.
    """
    scorer = load_scorer(options)
    manifest = scorer.manifest
    user = None if options.user is None else parse_id_texts([options.user], manifest.user_ids, "--user")[0]
    [item] = parse_id_texts([options.item], manifest.item_ids, "--item")
    rated, ratings = None, None
    if options.ratings is not None or options.liked is not None:
        rated, ratings = parse_ratings(options.ratings, options.liked, manifest.item_ids)
    result = scorer.explain(user, item, items=rated, ratings=ratings)
    order = abs(result.contributions).argsort(kind="stable")[::-1]
    contributions = item_rows(scorer, result.items[order], result.contributions[order])
    nearest = item_rows(scorer, result.nearest.items, result.nearest.similarities)
    title = scorer.title(item)
    terms: list[tuple[object, ...]] = [("base", "", result.base, None)]
    terms += [("rated", str(row.item), row.value, row.title) for row in contributions]
    terms += [("rest", "", result.rest, None), ("sum", "", result.logit, None)]
    unit = score_heading(manifest.units["recommend"])
    tables = [
        f"item {item}{title_in_parentheses(title)}: {unit} {result.score:.3f}",
        format_table(("term", "item", "contribution", "title"), terms),
    ]
    if nearest:
        tables.append(format_table(("nearest", "similarity", "title"), nearest))
    document = {
        "item": item,
        "title": title,
        "score": result.score,
        "logit": result.logit,
        "base": result.base,
        "rest": result.rest,
        "contributions": rows_to_json(contributions, "contribution"),
        "nearest": rows_to_json(nearest, "similarity"),
    }
    return Output("\n\n".join(tables), document)


COMMAND = Command(
    "explain",
    "show the contribution of each rated item to a score",
    "BUNDLE --item 50 --ratings 1193:5,661:4",
    add_options,
    run,
)
