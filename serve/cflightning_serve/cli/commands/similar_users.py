"""``similar-users``: list the users who are most similar to a user."""

import argparse

from cflightning_serve.bundle.ids import parse_id_texts
from cflightning_serve.cli.command import Command, Output, add_k_option, add_scorer_options, load_scorer
from cflightning_serve.cli.format import format_titled_top_k_users, user_rows_to_json


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--user", metavar="ID", nargs="+", action="extend", required=True, help="one user or several")
    add_k_option(parser, "users")
    add_scorer_options(parser)


def run(options: argparse.Namespace) -> Output:
    """List the similar users of each user.

    Raises:
        UnknownIdError: a user was not seen in training.
        InputError: an option or an id is invalid.
    """
    scorer = load_scorer(options)
    users = parse_id_texts(options.user, scorer.manifest.user_ids, "--user")
    top = scorer.similar_users(users, options.k)
    text = "\n\n".join(
        format_titled_top_k_users(f"user {user}", similar, "similarity")
        for user, similar in zip(users, top, strict=True)
    )
    document = [
        {"user": user, "similar": user_rows_to_json(similar, "similarity")}
        for user, similar in zip(users, top, strict=True)
    ]
    return Output(text, {"users": document})


COMMAND = Command("similar-users", "list the users most similar to a user", "BUNDLE --user 42 --k 10", add_options, run)
