"""What a run leaves behind for people and scripts: `metrics.json`, and a few lines at the end."""

from __future__ import annotations

import csv
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning_utilities.core.rank_zero import rank_zero_only

from cflightning.data.datamodule import RatingsDataModule


def write_text(path: Path, text: str) -> None:
    """Write a file in one step: readers see the old one or the new one, never half."""
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
        os.chmod(scratch, 0o644)  # mkstemp makes it private
        os.replace(scratch, path)
    finally:
        Path(scratch).unlink(missing_ok=True)


class RunReport(Callback):
    """Takes the time of every phase and writes `metrics.json` into the run folder.

    Keys are metric names (`test/rmse`), `seconds/…` (import, data, train, validate, test, total) and
    `train/ratings_per_second` (training steps only, without validation, imports and reading).
    """

    started: float = 0.0
    imported: float = 0.0

    def __init__(self) -> None:
        self.created = time.perf_counter()
        self.seconds: dict[str, float] = {}
        self._since: dict[str, float] = {}
        self._validated_in_epoch = 0.0
        self._rows = 0
        self._fitted: dict[str, float] = {}

    def _begin(self, phase: str) -> None:
        self._since[phase] = time.perf_counter()

    def _end(self, phase: str) -> float:
        spent = time.perf_counter() - self._since.pop(phase)
        self.seconds[phase] = self.seconds.get(phase, 0.0) + spent
        return spent

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Data is read by now."""
        self.seconds["data"] = time.perf_counter() - (self.imported or self.created)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of an epoch."""
        self._begin("train")
        self._validated_in_epoch = 0.0

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop it; validation inside the epoch has its own."""
        self._end("train")
        self.seconds["train"] -= self._validated_in_epoch
        self._rows += getattr(trainer.train_dataloader, "num_rows", 0)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of a validation."""
        self._begin("validate")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop it."""
        self._validated_in_epoch += self._end("validate")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the figures of training: testing clears them."""
        self._fitted = {name: float(value) for name, value in trainer.callback_metrics.items()}
        kept = trainer.checkpoint_callback
        if isinstance(kept, ModelCheckpoint) and kept.monitor and kept.best_model_score is not None:
            self._fitted[kept.monitor] = float(kept.best_model_score)  # of the epoch that is kept, not of the last one

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of the test."""
        self._begin("test")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop it."""
        self._end("test")

    def figures(self, trainer: Trainer) -> dict[str, Any]:
        """Everything that goes into `metrics.json`."""
        figures: dict[str, Any] = dict(self._fitted)
        figures.update({name: float(value) for name, value in trainer.callback_metrics.items()})
        train = self.seconds.get("train", 0.0)
        if train > 0 and self._rows:
            figures["train/ratings_per_second"] = self._rows / train
        figures["epochs"] = trainer.current_epoch
        figures.update({f"seconds/{phase}": spent for phase, spent in self.seconds.items()})
        if self.started:
            figures["seconds/import"] = self.imported - self.started
        figures["seconds/total"] = time.perf_counter() - (self.started or self.created)
        return figures

    def finish(self, trainer: Trainer, best: str) -> None:
        """Write `metrics.json` and tell the user what came out and what to type next; every process must call this."""
        folder = Path(trainer.log_dir or trainer.default_root_dir)  # asks the first process
        self._tell(self.figures(trainer), folder, best)

    @rank_zero_only
    def _tell(self, figures: dict[str, Any], folder: Path, best: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "metrics.json", json.dumps(dict(sorted(figures.items())), indent=2) + "\n")
        print()
        if "test/rmse" in figures:
            print(f"test RMSE {figures['test/rmse']:.4f}   MAE {figures['test/mae']:.4f}")
        spent = ", ".join(
            f"{phase} {self.seconds[phase]:.1f} s" for phase in ("data", "train", "test") if phase in self.seconds
        )
        print(f"{spent}, all {figures['seconds/total']:.1f} s")
        print(f"metrics          {folder / 'metrics.json'}")
        if best:
            print(f"best checkpoint  {_short(best)}")
            print(f"next             python -m cflightning export {_short(str(folder))} bundle")


@rank_zero_only
def _write_csv(path: Path, columns: dict[str, Any]) -> None:
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as out:
            writer = csv.writer(out)
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))
        os.chmod(scratch, 0o644)
        os.replace(scratch, path)
    finally:
        Path(scratch).unlink(missing_ok=True)


def write_predictions(trainer: Trainer, data: RatingsDataModule, path: Path) -> None:
    """Write user, item and score of every row, in the table's order, as CSV; every process must call this.

    Args:
        trainer: after `predict`.
        data: whose table was scored.
        path: the file.
    """
    parts = trainer.predict_loop.predictions or []
    index = torch.cat([part[0].cpu() for part in parts]) if parts else torch.empty(0, dtype=torch.int64)
    score = torch.cat([part[1].cpu() for part in parts]) if parts else torch.empty(0)
    gathered: list[Any] = [(index, score)]
    if trainer.world_size > 1:
        gathered = [None] * trainer.world_size
        torch.distributed.all_gather_object(gathered, (index, score))
    scores = torch.empty(sum(len(part[0]) for part in gathered))
    for rows, values in gathered:
        scores[rows] = values.float()
    frame = data._load(need_rating=False).frame
    users, items = data.vocabulary.users.rows(frame["user"]), data.vocabulary.items.rows(frame["item"])
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_csv(
        path,
        {
            "user": frame["user"],
            "item": frame["item"],
            "score": [f"{value:.6g}" for value in scores.tolist()],
            "known": ((users > 0) & (items > 0)).astype(int),
        },
    )
    if trainer.is_global_zero:
        print(f"scores of {len(frame):,} rows: {path}")


def _short(path: str) -> str:
    """Relative to the current folder where that is shorter."""
    relative = os.path.relpath(path)
    return relative if len(relative) < len(path) else path
