"""The graphs of the rows of users must hold the rows of the table."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cflightning.data.vocabulary import Vocabulary
from cflightning.errors import ExportError
from cflightning_export.contents.seen_items import SeenRows
from cflightning_export.onnx_tools.session import ask, open_graph, raw_ids


def verify_seen(folder: Path, vocabulary: Vocabulary, rows: SeenRows, *, rated: bool, seed: int = 1) -> None:
    """Ask `seen` and, where there is one, `history` about many, last, unknown and no users, and compare.

    Args:
        folder: with the graphs.
        vocabulary: ids of the rows.
        rows: what they must hold.
        rated: whether there is a `history`.
        seed: of the users.

    Raises:
        ExportError: says which graph differs, and for whom.
    """
    users = vocabulary.users.num_rows
    cases = {
        "many": np.random.default_rng(seed).integers(0, users, 20),
        "last": np.array([users - 1]),
        "unknown": np.array([0]),
        "zero": np.array([], np.int64),
    }
    for question in ("seen", "history")[: 2 if rated else 1]:
        session = open_graph(folder / f"{question}.onnx")
        for case, user in cases.items():
            name = f"{question}.onnx, {case}"
            item, place, *rating, position = ask(session, name, {"user": raw_ids(vocabulary.users, user)})
            wanted = [rows.of(row) for row in user.tolist()]
            if question == "history":
                wanted = [number[rows.trained[number]] for number in wanted]
            number = np.concatenate([*wanted, np.empty(0, np.int64)])
            whose = np.repeat(np.arange(len(user)), list(map(len, wanted)))
            same = (
                np.array_equal(position, whose)
                and all(np.array_equal(found, rows.item[number]) for found in (vocabulary.items.rows(item), place + 1))
                and all(np.array_equal(found, rows.rating[number]) for found in rating)
            )
            if not same:
                raise ExportError(
                    f"{name}: must hold the rows of the table, holds others; this is a bug, please report it"
                )
