"""``fold-in``: recommend items to a user that training has not seen."""

import argparse

from cflightning_serve.bundle.ids import parse_id_texts
from cflightning_serve.cli.command import (
    Command,
    Output,
    add_k_option,
    add_rating_options,
    add_scorer_options,
    load_scorer,
)
from cflightning_serve.cli.format import (
    format_table,
    format_top_k,
    item_rows,
    rows_to_json,
    score_heading,
    unknown_ids_note,
)
from cflightning_serve.cli.parse import parse_ratings


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--exclude", metavar="ID", nargs="+", action="extend", default=[], help="items to leave out")
    parser.add_argument("--item", metavar="ID", nargs="+", action="extend", default=[], help="items to score as well")
    add_rating_options(parser, required=True)
    add_k_option(parser)
    add_scorer_options(parser)


def run(options: argparse.Namespace) -> Output:
    """Recommend items to the user with the given ratings.

    Raises:
        InputError: an option, an id or a rating is invalid.
    """
    scorer = load_scorer(options)
    id_type, units = scorer.manifest.item_ids, scorer.manifest.units
    rated, ratings = parse_ratings(options.ratings, options.liked, id_type)
    scored = parse_id_texts(options.item, id_type, "--item")
    result = scorer.fold_in(
        rated, ratings, options.k, exclude=parse_id_texts(options.exclude, id_type, "--exclude"), score=scored
    )
    recommended = item_rows(scorer, result.items, result.scores)
    scores = item_rows(scorer, scored, result.requested_scores)
    tables = [format_top_k(recommended, score_heading(units["recommend"]))]
    if scores:
        tables.append(format_table(("item", score_heading(units["score"]), "title"), scores))
    unknown = [item for item, known in zip(rated, result.known.tolist(), strict=True) if not known]
    document = {
        "unit": units["recommend"],
        "items": rows_to_json(recommended, "score"),
        "scores": rows_to_json(scores, "score"),
        "unknown_items": unknown,
    }
    return Output("\n\n".join(tables), document, unknown_ids_note("item", unknown, "ignored"))


COMMAND = Command(
    "fold-in",
    "recommend items to a user that training has not seen",
    "BUNDLE --ratings 1193:5,661:4",
    add_options,
    run,
)
