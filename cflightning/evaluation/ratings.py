"""Evaluation of rating predictions: a baseline, confidence intervals and calibration."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.loaders.ratings import RatingBatch
from cflightning.data.splits.split import TEST, TRAIN
from cflightning.errors import ConfigError
from cflightning.evaluation.plots import draw_calibration
from cflightning.metrics.baseline import BiasBaseline, fit_baseline
from cflightning.metrics.calibration import Calibration, calibrate
from cflightning.metrics.intervals import error_sums, percentile_interval, resample, rmse_and_mae
from cflightning.utils.files import write_csv

log = logging.getLogger(__name__)


class RatingEvaluation(Callback):
    """Adds a baseline, confidence intervals and calibration to every test of rating predictions.

    Logged, and so returned by `Trainer.test`:

    - `test/baseline_rmse`, `test/baseline_mae`: errors of user and item biases alone on the same rows, fitted on the
      same training rows.
    - `test/rmse_low`, `test/rmse_high`, and the same for `mae`: 95 % intervals from a bootstrap over users. They show
      how the error of *this* model depends on the test users; `python -m cflightning kfold` shows how it varies
      between trainings. Left out if one user has all the rows.
    - `test/rmse_gain`, `test/mae_gain`: error of the baseline minus error of the model, with intervals; paired, so
      these are much narrower than those of the errors.
    - `test/calibration_error`: mean absolute difference of predicted and true ratings, over ten bins of equal count by
      predicted rating.

    The first process gathers the scores of the test rows from all devices and evaluates them, so the metrics do not
    depend on the number of devices. Needs a RatingsDataModule, and a task whose `test_step` returns its scores (float32
    [batch]).

    Args:
        replicates: Samples of the bootstrap.
        bins: Bins of the calibration.
        seed: Seed of the bootstrap.

    Attributes:
        calibration: Calibration of the last test; None before.
    """

    def __init__(self, replicates: int = 1000, bins: int = 10, seed: int = 0) -> None:
        for name, value, least in (("replicates", replicates, 2), ("bins", bins, 1), ("seed", seed, 0)):
            if value < least:
                raise ConfigError(f"RatingEvaluation({name}=...): must be at least {least}, got {value}")
        self.replicates = replicates
        self.bins = bins
        self.seed = seed
        self.calibration: Calibration | None = None
        self._batches: list[tuple[Tensor, Tensor]] = []
        self._baseline: tuple[np.ndarray, BiasBaseline] | None = None

    def __repr__(self) -> str:
        return f"RatingEvaluation(replicates={self.replicates}, bins={self.bins}, seed={self.seed})"

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reset the state of an earlier test."""
        self.calibration, self._batches = None, []
        _data_of(trainer)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: RatingBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the scores of a batch on their device, without synchronisation."""
        if isinstance(outputs, Tensor):
            self._batches.append((batch.position, outputs.detach().float()))

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate the scores, and log the metrics."""
        if not self._batches and not getattr(pl_module, "predicts_ratings", True):
            return
        if not self._batches:  # a warning, since an error would lose the test of a long training
            log.warning("%s.test_step returns no scores: no baseline and no intervals", type(pl_module).__name__)
            return
        data = _data_of(trainer)
        scored, scores = self._gather(trainer, pl_module, data.split.sizes[TEST])
        evaluated = self._evaluate(data, scored, scores) if trainer.is_global_zero else None
        metrics, self.calibration = trainer.strategy.broadcast(evaluated)  # type: ignore[misc]  # never None on rank 0
        double = torch.float32 if pl_module.device.type == "mps" else torch.float64
        pl_module.log_dict(
            {f"test/{name}": torch.tensor(value, dtype=double) for name, value in metrics.items()},
            sync_dist=True,  # equal on all processes; Lightning requires it
        )

    def _gather(self, trainer: Trainer, pl_module: LightningModule, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Return, from all devices, which test rows were scored (bool [rows]) and their scores (float32 [rows])."""
        gathered = torch.zeros(2, rows, device=pl_module.device)  # number of scores, and the score
        for position, score in self._batches:
            gathered[0, position] = 1
            gathered[1, position] = score
        self._batches = []
        # Every row is on one device and the others add zeros, so nothing is rounded.
        times, scores = trainer.strategy.reduce(gathered, reduce_op="sum").cpu().numpy()
        return times > 0, scores

    def _evaluate(
        self, data: RatingsDataModule, scored: np.ndarray, scores: np.ndarray
    ) -> tuple[dict[str, float], Calibration | None]:
        table, rows, scores = data.table, data.split.test[scored], scores[scored]  # fewer if batches were limited
        if not np.isfinite(scores).all():
            return {}, None  # training diverged, which the errors show
        baseline = self.baseline(data)
        users, items, ratings = table.user.codes[rows], table.item.codes[rows], table.ratings[rows]
        sums = error_sums(users, ratings, scores, baseline.score(users, items))
        calibration = calibrate(scores, ratings, users, self.bins)
        errors, baseline_errors = (rmse_and_mae(sums.sum(axis=0), model) for model in (0, 1))
        samples = resample(sums, self.replicates, self.seed) if len(sums) > 1 else None
        metrics = {"calibration_error": calibration.error}
        for column, name in enumerate(("rmse", "mae")):
            metrics[f"baseline_{name}"] = float(baseline_errors[column])
            metrics[f"{name}_gain"] = float(baseline_errors[column] - errors[column])
            if samples is not None:
                of_model, of_baseline = (rmse_and_mae(samples, model)[:, column] for model in (0, 1))
                metrics[f"{name}_low"], metrics[f"{name}_high"] = percentile_interval(of_model)
                metrics[f"{name}_gain_low"], metrics[f"{name}_gain_high"] = percentile_interval(of_baseline - of_model)
        return metrics, calibration

    def baseline(self, data: RatingsDataModule) -> BiasBaseline:
        """Return the baseline of the training part, which is fitted once for each split."""
        table, parts = data.table, data.split.parts
        if self._baseline is None or self._baseline[0] is not parts:
            fitted = fit_baseline(
                table.user.codes, table.item.codes, table.ratings, parts == TRAIN,
                len(table.user.ids), len(table.item.ids), data.load_options.given_rating_range,
            )  # fmt: skip
            self._baseline = parts, fitted
        return self._baseline[1]

    def write(self, folder: Path) -> Path | None:
        """Write the calibration of the last test as `calibration.csv` and, with matplotlib, `calibration.svg`.

        Args:
            folder: An existing folder.

        Returns:
            The picture, or else the table; None without a test.
        """
        if self.calibration is None:
            return None
        columns = {
            name: ["" if np.isnan(value) else f"{value:.6g}" for value in values]
            for name, values in self.calibration._asdict().items()
        }
        bins = range(1, len(self.calibration.rows) + 1)
        table, picture = folder / "calibration.csv", folder / "calibration.svg"
        write_csv(table, {"bin": bins, **columns})
        return picture if draw_calibration(self.calibration, picture) else table


def _data_of(trainer: Trainer) -> RatingsDataModule:
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, RatingsDataModule):
        raise ConfigError(
            "RatingEvaluation: must be used with a RatingsDataModule; give it to Trainer.test(task, data)"
        )
    return data
