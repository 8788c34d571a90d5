"""What a run leaves behind for people and scripts: `metrics.json`, and a few lines at the end."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning_utilities.core.rank_zero import rank_zero_only

from cflightning.cli.run_folders import drop_empty_run
from cflightning.data.datamodule import RatingsDataModule
from cflightning.errors import ConfigError, TrainingError
from cflightning.evaluation.baselines import comparison_lines
from cflightning.evaluation.ratings import Evaluation
from cflightning.evaluation.run_metrics import group_figures
from cflightning.tasks.rating import RatingTask
from cflightning.utils.files import make_folder, replacing, write_csv


class RunReport(Callback):
    """Takes the time of every phase and writes `metrics.json` into the run folder (see `run_metrics`).

    Figures are those that were logged (`test/rmse`), `seconds/…` (import, data, train, validate, test, total) and
    `train/ratings_per_second` (training steps only, without validation, imports and reading).

    Attributes:
        started: when the process began (`time.perf_counter()`).
        imported: when its imports were done.
        talks: whether anything is printed.
        result: what was written.
    """

    started: float = 0.0
    imported: float = 0.0
    talks: bool = True

    def __init__(self) -> None:
        self.created = time.perf_counter()
        self.seconds: dict[str, float] = {}
        self.result: dict[str, float] = {}
        self._since: dict[str, float] = {}
        self._validated_in_epoch = 0.0
        self._rows = 0

    def _begin(self, phase: str) -> None:
        self._since[phase] = time.perf_counter()

    def _end(self, phase: str) -> float:
        spent = time.perf_counter() - self._since.pop(phase)
        self.seconds[phase] = self.seconds.get(phase, 0.0) + spent
        return spent

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Data is read by now."""
        self.seconds["data"] = time.perf_counter() - (self.imported or self.created)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave no empty run folder."""
        for logger in trainer.loggers if trainer.is_global_zero and trainer.state.fn == TrainerFn.FITTING else ():
            if logger.log_dir is not None:
                drop_empty_run(Path(logger.log_dir))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of an epoch."""
        self._begin("train")
        self._validated_in_epoch = 0.0

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop it; validation inside the epoch has its own."""
        self._end("train")
        self.seconds["train"] -= self._validated_in_epoch

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the rows that were trained on, over all devices."""
        self._rows += getattr(batch, "total", 0)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of a validation."""
        self._begin("validate")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop it."""
        self._validated_in_epoch += self._end("validate")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of the test."""
        self._begin("test")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop it."""
        self._end("test")

    def figures(self, trainer: Trainer, kept: Mapping[str, float]) -> dict[str, float]:
        """Everything that goes into `metrics.json`.

        Args:
            trainer: after testing.
            kept: the figures of the epoch that is kept; those of the last epoch would be of another model.
        """
        figures = dict(kept)
        figures.update({name: float(value) for name, value in trainer.callback_metrics.items()})
        train = self.seconds.get("train", 0.0)
        if train > 0 and self._rows:
            figures["train/ratings_per_second"] = self._rows / train
        if "data" in self.seconds:  # it was a fit
            figures["epochs"] = trainer.current_epoch
        figures.update({f"seconds/{phase}": spent for phase, spent in self.seconds.items()})
        if self.started:
            figures["seconds/import"] = self.imported - self.started
        figures["seconds/total"] = time.perf_counter() - (self.started or self.created)
        return figures

    def finish(
        self,
        trainer: Trainer,
        folder: Path,
        evaluation: Evaluation,
        best: str = "",
        kept: Mapping[str, float] | None = None,
    ) -> None:
        """Write `metrics.json` and tell the user what came out and what to type next; every process must call this.

        Args:
            trainer: after testing.
            folder: of the run; made where it is missing.
            evaluation: of the test.
            best: path of the checkpoint that was tested, or empty.
            kept: the figures that it was saved with.

        Raises:
            TrainingError: a figure is not finite.
        """
        figures = self.figures(trainer, kept or {})
        finite = {name: value for name, value in figures.items() if math.isfinite(value)}
        self.result = finite
        self._tell(finite, _settings(trainer, best), folder, evaluation, best)
        if len(finite) < len(figures):
            raise TrainingError(
                f"{', '.join(sorted(figures.keys() - finite.keys()))}: must be finite, but training diverged; "
                "lower --model.learning_rate"
            )

    @rank_zero_only
    def _tell(
        self, figures: dict[str, float], settings: dict[str, Any], folder: Path, evaluation: Evaluation, best: str
    ) -> None:
        make_folder(folder)
        with replacing(folder / "metrics.json") as out:
            out.write(json.dumps(group_figures(figures, settings), indent=2) + "\n")
        calibration = evaluation.write(folder)
        if not self.talks:
            return
        print()
        for line in [*test_lines(figures), *comparison_lines(figures)]:
            print(line)
        phases = [phase for phase in ("data", "train", "test") if phase in self.seconds]
        print(", ".join(f"{phase} {self.seconds[phase]:.1f} s" for phase in phases), end=", ")
        print(f"all {figures['seconds/total']:.1f} s")
        print(f"metrics          {short(str(folder / 'metrics.json'))}")
        if calibration:
            print(f"calibration      {short(str(calibration))}")
        if best:
            print(f"best checkpoint  {short(best)}")
            print(f"next             python -m cflightning export {short(str(folder))} bundle")


def _settings(trainer: Trainer, best: str) -> dict[str, Any]:
    """Return what a fit or a test used, as plain data: of the task, of the data, and the checkpoint that was tested."""
    task, data = trainer.lightning_module, getattr(trainer, "datamodule", None)
    settings: dict[str, Any] = task.settings_used() if isinstance(task, RatingTask) else {}
    if isinstance(data, RatingsDataModule):
        rows = dict(zip(("train", "validation", "test"), data.split.sizes, strict=True))
        sizes = {"users": len(data.vocabulary.users), "items": len(data.vocabulary.items)}
        table = {"table": data.table.name, "split": data.split_method, "seed": data.seed}
        settings["data"] = {**table, "rows": rows, **sizes, "batch_size": data.batch_size}
    if tested := best or trainer.ckpt_path:
        settings["checkpoint"] = str(tested)
    return settings


def test_lines(figures: Mapping[str, float]) -> list[str]:
    """What a test says, for people: errors with their intervals, beside those of the biases alone.

    Args:
        figures: metric name -> value; whatever is there of `test/…`.
    """
    if "test/rmse" not in figures:
        return []

    def show(name: str) -> str:
        low, high = figures.get(f"test/{name}_low"), figures.get(f"test/{name}_high")
        known = low is not None and high is not None
        return f"{figures[f'test/{name}']:.4f}" + (f" [{low:.4f}, {high:.4f}]" if known else "")

    line = f"test RMSE {show('rmse')}   MAE {show('mae')}"
    if "test/baseline_rmse" not in figures:
        return [line]
    line += f"   bias only {figures['test/baseline_rmse']:.4f}"
    if figures["test/rmse_gain"] >= 0:
        return [line, f"better than user and item biases alone by {show('rmse_gain')}; brackets: 95 % over users"]
    # Told as a loss, so its signs and ends change places.
    low, high = (-figures.get(f"test/rmse_gain_{end}", math.nan) for end in ("high", "low"))
    between = "" if math.isnan(low) else f" [{low:.4f}, {high:.4f}]"
    loss = f"{-figures['test/rmse_gain']:.4f}{between}"
    return [line, f"warning: worse than user and item biases alone by {loss}; train longer, or tune --model.l2"]


def write_predictions(trainer: Trainer, data: RatingsDataModule, path: Path) -> None:
    """Write user, item and score of every row, in the table's order, as CSV; every process must call this.

    Args:
        trainer: after `predict`.
        data: whose table was scored.
        path: the file.
    """
    parts = trainer.predict_loop.predictions
    if parts is None:
        raise ConfigError("--return_predictions: must be true, for the predictions are to be written")
    index = torch.cat([part[0].cpu() for part in parts]) if parts else torch.empty(0, dtype=torch.int64)
    score = torch.cat([part[1].cpu() for part in parts]) if parts else torch.empty(0)
    gathered: list[Any] = [(index, score)]
    if trainer.world_size > 1:
        gathered = [None] * trainer.world_size
        torch.distributed.all_gather_object(gathered, (index, score))
    table = data.pairs
    scores = torch.full((len(table),), torch.nan)
    for rows, values in gathered:
        scores[rows] = values.float()
    # Fewer than all where the batches were limited.
    scored = ~scores.isnan().numpy()
    table, scores = table.take(scored), scores[torch.from_numpy(scored)]
    users, items = data.vocabulary.users.rows_of(table.user), data.vocabulary.items.rows_of(table.item)
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


def short(path: str) -> str:
    """Relative to the current folder where that is shorter."""
    relative = os.path.relpath(path)
    return relative if len(relative) < len(path) else path
