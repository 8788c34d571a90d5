"""``python -m cflightning_serve batch``: options -> a file of lists, and what to say of it."""

import argparse
from pathlib import Path

from cflightning_serve.batch.run import Shard, write_recommendations
from cflightning_serve.cli.commands import Answer
from cflightning_serve.cli.parse import read_ids
from cflightning_serve.scorer import Scorer


def batch(scorer: Scorer, options: argparse.Namespace) -> Answer:
    """Write the lists that the options ask for.

    Args:
        scorer: the bundle's scorer.
        options: ``out``, ``k``, ``users``, ``shard``, ``exclude_seen`` and ``threads``, as typed.

    Raises:
        InputError: one of them cannot be, or a file cannot be read or written.
    """
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
    return Answer(f"lists written to {path}", {"file": str(path)})
