"""The training data of a checkpoint, read again from the path in the checkpoint or in the config of its run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.encoding import encode
from cflightning.data.provenance import DATA_MODULE_NAMES, PATHS, Provenance
from cflightning.data.splits.split import TRAIN
from cflightning.data.vocabulary import Vocabulary
from cflightning.errors import CFLightningError, ExportError

MIN_WEIGHT = np.float32(1e-6)
"""Least weight of an interaction in a bundle, where weights are above 0."""


class TrainingRows(NamedTuple):
    """The training rows, sorted by user and then item.

    Attributes:
        user: int32 [n], indices.
        item: int32 [n], indices.
        rating: float32 [n], rating units; of implicit feedback the weight of the row, 1 if all weigh the same.
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
    provenance: Provenance | None = None,
) -> RatingsDataModule:
    """Read the data of a run again, split it as the run did, and compare it with the checkpoint.

    Args:
        checkpoint: in the folder `checkpoints` of a run, unless its provenance leads to the table.
        vocabulary: ids of the checkpoint.
        rows: number of training rows in the checkpoint, if it has that.
        flag: option that needs the data, for messages.
        otherwise: alternative without the data, for messages; "" for leaving the flag out.
        provenance: provenance in the checkpoint; it is used if the table still exists, whatever the current folder.

    Raises:
        ExportError: neither the checkpoint nor a run around it leads to the data, or the data cannot be read, or is not
            what the checkpoint was trained on.
    """
    otherwise = otherwise or f"leave {flag} out"
    config, data = checkpoint.parent.parent / "config.yaml", None
    if provenance is not None and _exists(provenance):
        config, data = checkpoint, _data_module(provenance.settings, checkpoint, flag)
    elif checkpoint.parent.name != "checkpoints" or not config.is_file():
        raise ExportError(
            f"{flag}: {checkpoint}: must lie in a run folder, whose config.yaml names the data, but there is "
            f"none; export the run itself, or {otherwise}"
        )
    data = data or _data_of_config(config, flag, otherwise)
    try:
        actual, split = data.vocabulary, data.split
    except (CFLightningError, OSError) as error:
        raise ExportError(
            f"{flag}: the data that {config} names cannot be read ({error}); put it back where it was (a "
            f"relative path counts from the current folder), or {otherwise}"
        ) from error
    same = (rows is None or rows == split.sizes[TRAIN]) and all(
        ours.kind == theirs.kind and np.array_equal(ours.values, theirs.values)
        for ours, theirs in ((actual.users, vocabulary.users), (actual.items, vocabulary.items))
    )
    counts = vocabulary.counts
    if not same or (counts is not None and actual.counts is not None and not np.array_equal(actual.counts, counts)):
        raise ExportError(
            f"{flag}: {data.table.name}: must be the data that {checkpoint} was trained on, but its training "
            f"part has {split.sizes[TRAIN]:,} rows of {len(actual.users):,} users and {len(actual.items):,} items, the "
            f"checkpoint's {'unknown' if rows is None else f'{rows:,}'} of {len(vocabulary.users):,} and "
            f"{len(vocabulary.items):,}, or others; train again, or {otherwise}"
        )
    return data


def training_rows(
    data: RatingsDataModule, vocabulary: Vocabulary, *, rates: bool = True, rating_weight: float = 0.0
) -> TrainingRows:
    """Return the training part of `training_data`.

    Args:
        data: data of the run.
        vocabulary: ids of the checkpoint.
        rates: whether the objective predicts ratings; if not, rows have their weights instead.
        rating_weight: setting of the objective `ease`, by which ratings are weights.
    """
    user, item, rating = encode(data.table, data.split, TRAIN, vocabulary)
    if data.table.rating is None or not rates:
        weights, position = data.training_weights(), data.training_ratings()
        if weights is None and position is not None and rating_weight:
            weights = np.maximum(1 + np.float32(rating_weight) * (position - np.float32(0.5)), MIN_WEIGHT)
        rating = np.ones(len(user), np.float32) if weights is None else weights
    order = np.lexsort((item, user))
    return TrainingRows(user[order], item[order], rating[order])


def _data_of_config(config: Path, flag: str, otherwise: str) -> RatingsDataModule:
    """Make the data module that a config describes."""
    try:
        saved = yaml.safe_load(config.read_text(encoding="utf-8"))["data"]
        class_path, options = saved["class_path"], saved.get("init_args") or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        raise ExportError(f"{flag}: {config}: must describe the data of a run, does not ({error!r})") from error
    if class_path not in DATA_MODULE_NAMES:  # no other class is imported
        raise ExportError(f"{flag}: {config}: the data must be a {DATA_MODULE_NAMES[0]}, got {class_path}; {otherwise}")
    return _data_module(options, config, flag)


def _exists(provenance: Provenance) -> bool:
    """Return whether the files of a provenance still exist."""
    paths = [provenance.settings[name] for name in PATHS if provenance.settings.get(name) is not None]
    return not provenance.frame and all(Path(path).exists() for path in paths)


def _data_module(options: Mapping[str, object], config: Path, flag: str) -> RatingsDataModule:
    try:
        return RatingsDataModule(**options)  # type: ignore[arg-type]
    except TypeError as error:
        raise ExportError(
            f"{flag}: {config}: the data's options cannot be used ({error}); was it written by another version?"
        ) from error
