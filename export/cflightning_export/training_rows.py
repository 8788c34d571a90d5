"""The rows that a checkpoint was trained on, from the data that its run's config names."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from cflightning import checkpoint as checkpoints
from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.lists import encode
from cflightning.data.split import TRAIN
from cflightning.data.vocabulary import Vocabulary
from cflightning.errors import CFLightningError, ExportError
from cflightning.tasks.ranking import RATING

CLASSES = ("cflightning.RatingsDataModule", "cflightning.data.datamodule.RatingsDataModule")


class TrainingRows(NamedTuple):
    """Who rated or chose what, in the order of user rows, then item rows.

    Attributes:
        user: int32 [n], rows.
        item: int32 [n], rows.
        rating: float32 [n], rating units; of choices what each counts, which is 1 where all count the same.
    """

    user: np.ndarray
    item: np.ndarray
    rating: np.ndarray


def training_rows(checkpoint: Path, vocabulary: Vocabulary, rows: int | None) -> TrainingRows:
    """Read a run's data again, cut it as the run did, and hold it against the checkpoint.

    Args:
        checkpoint: in the folder `checkpoints` of a run.
        vocabulary: of the checkpoint.
        rows: training rows that the checkpoint counted, where it did.

    Raises:
        ExportError: there is no run around the checkpoint, its data cannot be read, or is not what it was trained on.
    """
    config = checkpoint.parent.parent / "config.yaml"
    if checkpoint.parent.name != "checkpoints" or not config.is_file():
        raise ExportError(
            f"--with-history: {checkpoint}: must lie in a run folder, whose config.yaml names the data, but there is "
            "none; export the run itself, or leave the history out"
        )
    data = _data_of(config)
    try:
        learnt, split = data.vocabulary, data.split
    except (CFLightningError, OSError) as error:
        raise ExportError(
            f"--with-history: the data that {config} names cannot be read ({error}); put it back where it was (a "
            "relative path counts from the current folder), or leave the history out"
        ) from error
    same = (rows is None or rows == split.sizes[TRAIN]) and all(
        mine.kind == theirs.kind and np.array_equal(mine.values, theirs.values)
        for mine, theirs in ((learnt.users, vocabulary.users), (learnt.items, vocabulary.items))
    )
    counts = vocabulary.counts
    if not same or (counts is not None and learnt.counts is not None and not np.array_equal(learnt.counts, counts)):
        raise ExportError(
            f"--with-history: {data.table.name}: must be the data that {checkpoint} was trained on, but its training "
            f"part has {split.sizes[TRAIN]:,} rows of {len(learnt.users):,} users and {len(learnt.items):,} items, the "
            f"checkpoint's {'unknown' if rows is None else f'{rows:,}'} of {len(vocabulary.users):,} and "
            f"{len(vocabulary.items):,}, or others; train again, or leave the history out"
        )
    user, item, rating = encode(data.table, split, TRAIN, vocabulary)
    _, facts = checkpoints.unpack(checkpoints.read(checkpoint))
    if data.table.rating is None or facts.get("objective", "mse") not in RATING:  # which sees no ratings
        weights = data.training_weights()
        rating = np.ones(len(user), np.float32) if weights is None else weights
    order = np.lexsort((item, user))
    return TrainingRows(user[order], item[order], rating[order])


def _data_of(config: Path) -> RatingsDataModule:
    """The data module that a config describes; no other class is ever imported."""
    try:
        saved: Any = yaml.safe_load(config.read_text(encoding="utf-8"))["data"]
        kind, options = saved["class_path"], saved.get("init_args") or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        raise ExportError(f"--with-history: {config}: must describe the data of a run, does not ({error!r})") from error
    if kind not in CLASSES:
        raise ExportError(
            f"--with-history: {config}: the data must be a {CLASSES[0]}, got {kind}; leave the history out"
        )
    try:
        return RatingsDataModule(**options)
    except TypeError as error:
        raise ExportError(
            f"--with-history: {config}: the data's options cannot be used ({error}); was it written by another version?"
        ) from error
