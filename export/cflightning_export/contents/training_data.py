"""The rows that a checkpoint was trained on, from the data that its run's config names."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.encoding import encode
from cflightning.data.provenance import PATHS, Provenance
from cflightning.data.splits.split import TRAIN
from cflightning.data.vocabulary import Vocabulary
from cflightning.errors import CFLightningError, ExportError

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


def training_data(
    checkpoint: Path,
    vocabulary: Vocabulary,
    rows: int | None,
    flag: str = "--with-history",
    otherwise: str = "",
    kept: Provenance | None = None,
) -> RatingsDataModule:
    """Read a run's data again, cut it as the run did, and hold it against the checkpoint.

    Args:
        checkpoint: in the folder `checkpoints` of a run, unless it says itself where its table lies.
        vocabulary: of the checkpoint.
        rows: training rows that the checkpoint counted, where it did.
        flag: what needs the data, for messages.
        otherwise: how to do without, for messages; not given, to leave the flag out.
        kept: what the checkpoint says of its data; used where the table is still there, whatever the current folder.

    Raises:
        ExportError: neither the checkpoint nor a run around it leads to the data, it cannot be read, or is not what the
            checkpoint was trained on.
    """
    otherwise = otherwise or f"leave {flag} out"
    config, data = checkpoint.parent.parent / "config.yaml", None
    if kept is not None and _is_there(kept):
        config, data = checkpoint, _module(kept.settings, checkpoint, flag)
    elif checkpoint.parent.name != "checkpoints" or not config.is_file():
        raise ExportError(
            f"{flag}: {checkpoint}: must lie in a run folder, whose config.yaml names the data, but there is "
            f"none; export the run itself, or {otherwise}"
        )
    data = data or _data_of(config, flag, otherwise)
    try:
        learnt, split = data.vocabulary, data.split
    except (CFLightningError, OSError) as error:
        raise ExportError(
            f"{flag}: the data that {config} names cannot be read ({error}); put it back where it was (a "
            f"relative path counts from the current folder), or {otherwise}"
        ) from error
    same = (rows is None or rows == split.sizes[TRAIN]) and all(
        mine.kind == theirs.kind and np.array_equal(mine.values, theirs.values)
        for mine, theirs in ((learnt.users, vocabulary.users), (learnt.items, vocabulary.items))
    )
    counts = vocabulary.counts
    if not same or (counts is not None and learnt.counts is not None and not np.array_equal(learnt.counts, counts)):
        raise ExportError(
            f"{flag}: {data.table.name}: must be the data that {checkpoint} was trained on, but its training "
            f"part has {split.sizes[TRAIN]:,} rows of {len(learnt.users):,} users and {len(learnt.items):,} items, the "
            f"checkpoint's {'unknown' if rows is None else f'{rows:,}'} of {len(vocabulary.users):,} and "
            f"{len(vocabulary.items):,}, or others; train again, or {otherwise}"
        )
    return data


def training_rows(data: RatingsDataModule, vocabulary: Vocabulary, *, rates: bool = True) -> TrainingRows:
    """The training part of `training_data`.

    Args:
        data: of the run.
        vocabulary: of the checkpoint.
        rates: whether the objective saw ratings; else each row counts as it was counted.
    """
    user, item, rating = encode(data.table, data.split, TRAIN, vocabulary)
    if data.table.rating is None or not rates:
        weights = data.training_weights()
        rating = np.ones(len(user), np.float32) if weights is None else weights
    order = np.lexsort((item, user))
    return TrainingRows(user[order], item[order], rating[order])


def _data_of(config: Path, flag: str, otherwise: str) -> RatingsDataModule:
    """The data module that a config describes; no other class is ever imported."""
    try:
        saved: Any = yaml.safe_load(config.read_text(encoding="utf-8"))["data"]
        kind, options = saved["class_path"], saved.get("init_args") or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        raise ExportError(f"{flag}: {config}: must describe the data of a run, does not ({error!r})") from error
    if kind not in CLASSES:
        raise ExportError(f"{flag}: {config}: the data must be a {CLASSES[0]}, got {kind}; {otherwise}")
    return _module(options, config, flag)


def _is_there(kept: Provenance) -> bool:
    """Whether the settings of a checkpoint lead to a table."""
    paths = [kept.settings[name] for name in PATHS if kept.settings.get(name) is not None]
    return not kept.frame and all(Path(path).exists() for path in paths)


def _module(options: dict[str, Any], config: Path, flag: str) -> RatingsDataModule:
    try:
        return RatingsDataModule(**options)
    except TypeError as error:
        raise ExportError(
            f"{flag}: {config}: the data's options cannot be used ({error}); was it written by another version?"
        ) from error
