"""``batch``: write the recommendations for all users to a file."""

import argparse
from pathlib import Path

from cflightning_serve.batch.run import Shard, write_recommendations
from cflightning_serve.cli.command import (
    Command,
    Output,
    add_exclude_seen_option,
    add_k_option,
    add_scorer_options,
    load_scorer,
)
from cflightning_serve.cli.parse import read_ids


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--out", metavar="FILE", required=True, help="output file: .csv, or .parquet (needs pyarrow)")
    parser.add_argument("--users", metavar="FILE", help="CSV file with the column user (default: all known users)")
    parser.add_argument(
        "--shard", metavar="N/COUNT", help="process only the N-th of COUNT equal shards of the users, into its own file"
    )
    add_exclude_seen_option(parser)
    add_k_option(parser)
    add_scorer_options(parser)


def run(options: argparse.Namespace) -> Output:
    """Write the file.

    Raises:
        InputError: an option is invalid, or a file cannot be read or written.
    """
    scorer = load_scorer(options, threads=1)  # blocks of users run in parallel instead
    users = None
    if options.users is not None:
        [users] = read_ids(options.users, {"user": scorer.manifest.user_ids})
    path = write_recommendations(
        scorer,
        Path(options.out),
        options.k,
        users=users,
        shard=None if options.shard is None else Shard.parse(options.shard),
        exclude_seen=options.exclude_seen,
        threads=options.threads,
    )
    return Output(f"recommendations written to {path}", {"file": str(path)})


COMMAND = Command(
    "batch",
    "write the recommendations for all users to a file",
    "BUNDLE --k 100 --out recommendations.csv --shard 3/16",
    add_options,
    run,
    interrupted="stopped; repeat the command to continue",
)
