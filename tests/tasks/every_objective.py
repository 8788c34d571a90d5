"""Run by test_every_objective.py: trains one task after the other in one process, alone or as one of several."""

import json
import os
import sys
from pathlib import Path

import torch
from lightning.pytorch import Trainer

from cflightning import EmbeddingDotTask, EmbeddingMLPTask, RatingEvaluation, RatingsDataModule
from cflightning.data.splits.options import SplitOptions

KINDS = {"EmbeddingDotTask": EmbeddingDotTask, "EmbeddingMLPTask": EmbeddingMLPTask}


def train(options: dict, strategy: str) -> dict[str, float]:
    """Return the metrics of a short fit and its test."""
    options = dict(options)
    feedback = options.pop("feedback", "ratings")
    data = RatingsDataModule(
        source="synthetic",
        synthetic={"num_users": 60, "num_items": 40, "num_ratings": 1111},
        feedback=feedback,
        batch_size=128 if options.get("engine") == "autograd" else None,
        split=SplitOptions(val_fraction=0.05, test_fraction=0.2),
    )
    task = KINDS[options.pop("kind", "EmbeddingDotTask")](**options)
    processes = int(os.environ.get("WORLD_SIZE", 1))
    trainer = Trainer(
        accelerator="cpu", devices=processes, strategy=strategy if processes > 1 else "auto", max_epochs=2,
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[RatingEvaluation()],
    )  # fmt: skip
    trainer.fit(task, data)
    figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
    figures |= trainer.test(task, data, verbose=False)[0]
    figures["sum"] = float(sum(table.double().abs().sum() for table in task.network.parameters()))
    return figures


def main(kinds: dict[str, dict], strategy: str, out: Path) -> None:
    torch.set_num_threads(1)
    found = {name: train(options, strategy) for name, options in kinds.items()}
    (out / f"{os.environ.get('WORLD_SIZE', 1)}-{os.environ.get('RANK', 0)}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
