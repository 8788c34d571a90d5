"""The report of a run: `metrics.json` in its folder, and a few lines at the end."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning_utilities.core.rank_zero import rank_zero_only

from cflightning.cli.run_folders import drop_empty_run, relative
from cflightning.data.datamodule import RatingsDataModule
from cflightning.errors import TrainingError
from cflightning.evaluation.baselines import comparison_lines
from cflightning.evaluation.ratings import RatingEvaluation
from cflightning.evaluation.run_metrics import group_metrics
from cflightning.tasks.rating import RecommenderTask
from cflightning.utils.files import make_folder, write_json


class RunReport(Callback):
    """Measures the time of every phase and writes `metrics.json` into the run folder (see `run_metrics`).

    The file has all logged metrics (`test/rmse`), `seconds/…` (import, data, train, validate, test, total) and
    `train/ratings_per_second` (training steps alone, without validation, imports and reading).

    Args:
        started: `time.perf_counter()` at the start of the process.
        imported: The same at the end of its imports.
        verbose: Whether to print the metrics.

    Attributes:
        metrics: The metrics that were written.
    """

    def __init__(self, started: float, imported: float, verbose: bool = True) -> None:
        self.started, self.imported, self.verbose = started, imported, verbose
        self.seconds: dict[str, float] = {}
        self.metrics: dict[str, float] = {}
        self._began: dict[str, float] = {}
        self._validation_seconds = 0.0
        self._trained_rows = 0

    def _begin(self, phase: str) -> None:
        self._began[phase] = time.perf_counter()

    def _end(self, phase: str) -> float:
        seconds = time.perf_counter() - self._began.pop(phase)
        self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds
        return seconds

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock of reading the data."""
        self.seconds["data"] = time.perf_counter() - self.imported

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Delete an empty run folder."""
        for logger in trainer.loggers if trainer.is_global_zero and trainer.state.fn == TrainerFn.FITTING else ():
            if logger.log_dir is not None:
                drop_empty_run(Path(logger.log_dir))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of an epoch."""
        self._begin("train")
        self._validation_seconds = 0.0

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock of an epoch, without the validation inside it."""
        self._end("train")
        self.seconds["train"] -= self._validation_seconds

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Count the training rows of all devices."""
        self._trained_rows += getattr(batch, "total", 0)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of a validation."""
        self._begin("validate")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock of a validation."""
        self._validation_seconds += self._end("validate")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of the test."""
        self._begin("test")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock of the test."""
        self._end("test")

    def all_metrics(self, trainer: Trainer, best_epoch: Mapping[str, float]) -> dict[str, float]:
        """Return everything that `metrics.json` will hold, by logged name.

        Args:
            trainer: After testing.
            best_epoch: Metrics of the epoch that was kept; the Trainer has those of the last one.
        """
        metrics = dict(best_epoch)
        metrics.update({name: float(value) for name, value in trainer.callback_metrics.items()})
        train = self.seconds.get("train", 0.0)
        if train > 0 and self._trained_rows:
            metrics["train/ratings_per_second"] = self._trained_rows / train
        if "data" in self.seconds:  # a fit
            metrics["epochs"] = trainer.current_epoch
        metrics.update({f"seconds/{phase}": seconds for phase, seconds in self.seconds.items()})
        metrics["seconds/import"] = self.imported - self.started
        metrics["seconds/total"] = time.perf_counter() - self.started
        return metrics

    def finish(
        self,
        trainer: Trainer,
        folder: Path,
        evaluation: RatingEvaluation,
        best: str = "",
        best_epoch: Mapping[str, float] | None = None,
    ) -> None:
        """Write `metrics.json`, and print the metrics and the next command; every process must call this.

        Args:
            trainer: After testing.
            folder: The run folder; made if missing.
            evaluation: Callback of the test.
            best: Path of the checkpoint that was tested, or empty.
            best_epoch: Metrics that were saved with that checkpoint.

        Raises:
            TrainingError: A metric is not finite.
        """
        metrics = self.all_metrics(trainer, best_epoch or {})
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        self.metrics = finite
        self._write(finite, _settings(trainer, best), folder, evaluation, best)
        if len(finite) < len(metrics):
            raise TrainingError(
                f"{', '.join(sorted(metrics.keys() - finite.keys()))}: must be finite, but training diverged; "
                "lower --model.learning_rate"
            )

    @rank_zero_only
    def _write(
        self,
        metrics: dict[str, float],
        settings: dict[str, object],
        folder: Path,
        evaluation: RatingEvaluation,
        best: str,
    ) -> None:
        make_folder(folder)
        write_json(folder / "metrics.json", group_metrics(metrics, settings))
        calibration = evaluation.write(folder)
        if not self.verbose:
            return
        print()
        for line in [*summarise_test(metrics), *comparison_lines(metrics)]:
            print(line)
        phases = [phase for phase in ("data", "train", "test") if phase in self.seconds]
        print(", ".join(f"{phase} {self.seconds[phase]:.1f} s" for phase in phases), end=", ")
        print(f"total {metrics['seconds/total']:.1f} s")
        print(f"metrics          {relative(folder / 'metrics.json')}")
        if calibration:
            print(f"calibration      {relative(calibration)}")
        if best:
            print(f"best checkpoint  {relative(best)}")
            print(f"next             python -m cflightning export {relative(folder)} bundle")


def _settings(trainer: Trainer, best: str) -> dict[str, object]:
    """Return the settings of task and data and the tested checkpoint, as plain data."""
    task, data = trainer.lightning_module, getattr(trainer, "datamodule", None)
    settings: dict[str, object] = task.settings_used() if isinstance(task, RecommenderTask) else {}
    if isinstance(data, RatingsDataModule):
        rows = dict(zip(("train", "validation", "test"), data.split.sizes, strict=True))
        sizes = {"users": len(data.vocabulary.users), "items": len(data.vocabulary.items)}
        table = {"table": data.table.name, "split": data.split_method, "seed": data.seed}
        settings["data"] = {**table, "rows": rows, **sizes, "batch_size": data.batch_size}
    if tested := best or trainer.ckpt_path:
        settings["checkpoint"] = str(tested)
    return settings


def summarise_test(metrics: Mapping[str, float]) -> list[str]:
    """Format test RMSE and MAE with their intervals, beside those of the bias-only baseline.

    Args:
        metrics: Logged name -> value; those of `test/…` are shown.
    """
    if "test/rmse" not in metrics:
        return []

    def with_interval(name: str) -> str:
        low, high = metrics.get(f"test/{name}_low"), metrics.get(f"test/{name}_high")
        interval = "" if low is None or high is None else f" [{low:.4f}, {high:.4f}]"
        return f"{metrics[f'test/{name}']:.4f}{interval}"

    line = f"test RMSE {with_interval('rmse')}   MAE {with_interval('mae')}"
    if "test/baseline_rmse" not in metrics:
        return [line]
    line += f"   baseline RMSE {metrics['test/baseline_rmse']:.4f}"
    baseline = "the baseline of user and item biases alone"
    if metrics["test/rmse_gain"] >= 0:
        return [line, f"RMSE below {baseline} by {with_interval('rmse_gain')}; brackets: 95 % intervals over users"]
    # As a loss, with the signs and the ends of the interval swapped.
    low, high = (-metrics.get(f"test/rmse_gain_{end}", math.nan) for end in ("high", "low"))
    interval = "" if math.isnan(low) else f" [{low:.4f}, {high:.4f}]"
    loss = f"{-metrics['test/rmse_gain']:.4f}{interval}"
    return [line, f"warning: RMSE above {baseline} by {loss}; train longer, or tune --model.l2"]
