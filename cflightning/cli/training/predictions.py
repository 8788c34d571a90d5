"""The file that `predict` writes."""

from __future__ import annotations

from pathlib import Path

import torch
from lightning.pytorch import Trainer

from cflightning.data.datamodule import RatingsDataModule
from cflightning.errors import ConfigError
from cflightning.utils.distributed import gather
from cflightning.utils.files import make_folder, write_csv


def write_predictions(trainer: Trainer, data: RatingsDataModule, path: Path) -> None:
    """Write user, item and score of every row as CSV, in the order of the table; every process must call this.

    Args:
        trainer: After `predict`.
        data: The table that was scored.
        path: The file.

    Raises:
        ConfigError: The Trainer kept no predictions.
    """
    batches = trainer.predict_loop.predictions
    if batches is None:
        raise ConfigError("--return_predictions: must be true, otherwise there are no predictions to write")
    row = torch.cat([batch[0].cpu() for batch in batches]) if batches else torch.empty(0, dtype=torch.int64)
    score = torch.cat([batch[1].cpu() for batch in batches]) if batches else torch.empty(0)
    table = data.rows_to_score
    scores = torch.full((len(table),), torch.nan)
    for rows, values in gather((row, score)) if trainer.world_size > 1 else [(row, score)]:
        scores[rows] = values.float()
    scored = ~scores.isnan().numpy()  # fewer than all rows if the number of batches was limited
    table, scores = table.take(scored), scores[torch.from_numpy(scored)]
    users, items = data.vocabulary.users.indices_of(table.user), data.vocabulary.items.indices_of(table.item)
    if trainer.is_global_zero:
        make_folder(path.parent)
        write_csv(
            path,
            {
                "user": table.user.values.tolist(),
                "item": table.item.values.tolist(),
                "score": [f"{value:.6g}" for value in scores.tolist()],
                "known": ((users > 0) & (items > 0)).astype(int),
            },
        )
        print(f"scores of {len(table):,} rows: {path}")
