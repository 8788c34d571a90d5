"""Run by test_two_processes.py like a user's script: trains on a number of CPU processes."""

import json
import sys
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer

from cflightning import EmbeddingDotTask, RatingEvaluation, RatingsDataModule
from cflightning.data.splits.options import SplitOptions
from cflightning.evaluation.baselines import RankingBaselines


class Rows(Callback):
    """Records the rows that this process trains on, by epoch."""

    def __init__(self):
        self.epochs = []

    def on_train_epoch_start(self, trainer, pl_module):
        self.epochs.append([])

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if pl_module.automatic_optimization:
            self.epochs[-1] += batch.position.tolist()
        elif hasattr(batch, "cells"):  # the fused engine's batches are cells of its layout
            starts = trainer.train_dataloader.layout.starts
            self.epochs[-1] += [row for cell in batch.cells for row in range(starts[cell], starts[cell + 1])]


def main(options: dict, devices: int, out: Path) -> None:
    torch.set_num_threads(1)
    users = {"method": options.pop("split"), "test_users": 21, "val_users": 9} if "split" in options else {}
    data = RatingsDataModule(
        source="synthetic",
        synthetic={"num_users": 60, "num_items": 40, "num_ratings": 1111},
        batch_size=128,
        eval_batch_size=50,
        split=SplitOptions(val_fraction=0.05, **users),
    )
    task, rows = EmbeddingDotTask(dim=4, **options), Rows()
    trainer = Trainer(
        accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto", max_epochs=3, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[rows, RatingEvaluation(), RankingBaselines()],
    )  # fmt: skip
    trainer.fit(task, data)
    train = {name: float(value) for name, value in trainer.callback_metrics.items()}
    [test] = trainer.test(task, data, verbose=False)
    tables = torch.cat([table.detach().reshape(-1) for table in task.network.parameters()])
    (out / f"{devices}-{trainer.global_rank}.json").write_text(
        json.dumps({"metrics": {**train, **test}, "epochs": rows.epochs, "steps": trainer.global_step,
                    "train": len(data.split.train), "tables": tables.tolist()})
    )  # fmt: skip


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
