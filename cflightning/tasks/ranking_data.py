"""The training part as rankings see it: its interactions and its size."""

from __future__ import annotations

import torch

from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.splits.split import TRAIN
from cflightning.objectives.settings import TableSize
from cflightning.objectives.solver import InteractionColumns


def table_size(data: RatingsDataModule) -> TableSize:
    """Return the size of the training part."""
    return TableSize(data.split.sizes[TRAIN], data.num_users, data.num_items)


def interaction_columns(data: RatingsDataModule) -> InteractionColumns:
    """Return the interactions of the training part."""
    user, item = (torch.from_numpy(column) for column in data.training_pairs())
    weight, rating = (
        None if column is None else torch.from_numpy(column)
        for column in (data.training_weights(), data.training_ratings())
    )
    return InteractionColumns(user, item, weight, rating)
