"""``recommend``: recommend items to users."""

import argparse

from cflightning_serve.bundle.ids import parse_id_texts
from cflightning_serve.cli.command import (
    Command,
    Output,
    add_exclude_seen_option,
    add_k_option,
    add_scorer_options,
    load_scorer,
)
from cflightning_serve.cli.format import format_titled_top_k, item_rows, rows_to_json, score_heading, unknown_ids_note


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--user", metavar="ID", nargs="+", action="extend", required=True, help="one user or several")
    parser.add_argument(
        "--exclude", metavar="ID", nargs="+", action="extend", default=[], help="items to leave out, for every user"
    )
    parser.add_argument("--allow", metavar="ID", nargs="+", action="extend", help="only these items")
    parser.add_argument("--deny", metavar="ID", nargs="+", action="extend", help="none of these items")
    parser.add_argument(
        "--category", dest="categories", metavar="NAME", nargs="+", action="extend",
        help="only items of any of these categories",
    )  # fmt: skip
    parser.add_argument("--min-count", metavar="N", type=int, help="only items with at least N training rows")
    parser.add_argument(
        "--diversity", metavar="D", type=float, default=0.0,
        help="from 0, the highest scores, to 1, the least similar items (default: 0)",
    )  # fmt: skip
    add_exclude_seen_option(parser)
    add_k_option(parser)
    add_scorer_options(parser)


def run(options: argparse.Namespace) -> Output:
    """Recommend items to each user.

    Raises:
        InputError: an option or an id is invalid.
    """
    scorer = load_scorer(options)
    manifest = scorer.manifest
    users = parse_id_texts(options.user, manifest.user_ids, "--user")
    exclude = parse_id_texts(options.exclude, manifest.item_ids, "--exclude")
    top = scorer.recommend(
        users,
        options.k,
        exclude=[exclude] * len(users),
        exclude_seen=options.exclude_seen,
        allow=None if options.allow is None else parse_id_texts(options.allow, manifest.item_ids, "--allow"),
        deny=None if options.deny is None else parse_id_texts(options.deny, manifest.item_ids, "--deny"),
        categories=options.categories,
        min_count=options.min_count,
        diversity=options.diversity,
    )
    known = scorer.knows_user(users).tolist()
    rows = [item_rows(scorer, items, scores) for items, scores in top]
    unit = manifest.units["recommend"]
    text = "\n\n".join(
        format_titled_top_k(f"user {user}", items, score_heading(unit)) for user, items in zip(users, rows, strict=True)
    )
    document = [
        {"user": user, "known": is_known, "items": rows_to_json(items, "score")}
        for user, is_known, items in zip(users, known, rows, strict=True)
    ]
    meaning = "ratings" if unit == "rating" else "scores"
    notes = unknown_ids_note(
        "user",
        [user for user, is_known in zip(users, known, strict=True) if not is_known],
        f"the items with the highest mean {meaning} are recommended",
    )
    return Output(text, {"unit": unit, "users": document}, notes)


COMMAND = Command(
    "recommend", "recommend items to users", "BUNDLE --user 42 --k 10 --exclude 1193 661", add_options, run
)
