"""What a test error is worth: beside a baseline, with an interval, and by how high it predicts."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.splits.split import TEST, TRAIN
from cflightning.errors import ConfigError
from cflightning.evaluation.plots import draw_calibration
from cflightning.metrics.baseline import BiasBaseline, fit_baseline
from cflightning.metrics.calibration import Calibration, calibrate
from cflightning.metrics.uncertainty import error_sums, interval, resample, rmse_and_mae
from cflightning.utils.files import write_csv

log = logging.getLogger(__name__)


class Evaluation(Callback):
    """Adds to every test of rating predictions what is needed to read its errors.

    Logged, and so returned by `Trainer.test`:

    - `test/baseline_rmse`, `test/baseline_mae`: what user and item biases alone get on the same rows, learnt from the
      same training rows.
    - `test/rmse_low`, `test/rmse_high`, and the same of `mae`: 95 % intervals from a bootstrap over users. They say how
      the error of *this* model varies with the users that it is tested on; how it varies from training to training is
      another question (`python -m cflightning kfold`). Left out where one user has all the rows.
    - `test/rmse_gain`, `test/mae_gain`: by how much the model is better than the baseline, with intervals; paired, so
      these are much narrower than those of the errors.
    - `test/calibration_error`: mean absolute difference of predicted and true ratings, over ten bins of equal count by
      predicted rating.

    Scores of the test rows are gathered from all devices, then the first process measures: the figures are the same on
    any number of devices. Needs a RatingsDataModule, and a task whose `test_step` returns its scores (float32 [batch]).

    Args:
        replicates: Of the bootstrap.
        bins: Of the calibration.
        seed: Of the bootstrap.

    Attributes:
        calibration: of the last test; None before.
    """

    def __init__(self, replicates: int = 1000, bins: int = 10, seed: int = 0) -> None:
        for name, value, least in (("replicates", replicates, 2), ("bins", bins, 1), ("seed", seed, 0)):
            if value < least:
                raise ConfigError(f"Evaluation({name}=...): must be at least {least}, got {value}")
        self.replicates = replicates
        self.bins = bins
        self.seed = seed
        self.calibration: Calibration | None = None
        self._seen: list[tuple[Tensor, Tensor]] = []
        self._baseline: tuple[np.ndarray, BiasBaseline] | None = None

    def __repr__(self) -> str:
        return f"Evaluation(replicates={self.replicates}, bins={self.bins}, seed={self.seed})"

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget what was there before."""
        self.calibration, self._seen = None, []
        _data(trainer)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the scores of a batch, where they are: no device is waited for."""
        if isinstance(outputs, Tensor):
            self._seen.append((batch.position, outputs.detach().float()))

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure, and log what comes out."""
        if not self._seen and not getattr(pl_module, "predicts_ratings", True):
            return
        if not self._seen:  # no reason to lose a long training's test
            log.warning("%s.test_step returns no scores: no baseline and no intervals", type(pl_module).__name__)
            return
        data = _data(trainer)
        found = self._gather(trainer, pl_module, data.split.sizes[TEST])
        measured: Any = self._measure(data, *found) if trainer.is_global_zero else None
        figures, self.calibration = trainer.strategy.broadcast(measured)
        double = torch.float32 if pl_module.device.type == "mps" else torch.float64
        pl_module.log_dict(
            {f"test/{name}": torch.tensor(value, dtype=double) for name, value in figures.items()},
            sync_dist=True,  # equal numbers; Lightning asks for it
        )

    def _gather(self, trainer: Trainer, pl_module: LightningModule, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """From all devices, which of the test rows were scored (bool [rows]), and how (float32 [rows])."""
        found = torch.zeros(2, rows, device=pl_module.device)  # how often, and the score
        for position, score in self._seen:
            found[0, position] = 1
            found[1, position] = score
        self._seen = []
        # Every row is on one device, the others add zeros: nothing is rounded.
        times, scores = trainer.strategy.reduce(found, reduce_op="sum").cpu().numpy()
        return times > 0, scores

    def _measure(
        self, data: RatingsDataModule, scored: np.ndarray, scores: np.ndarray
    ) -> tuple[dict[str, float], Calibration | None]:
        table, rows, scores = data.table, data.split.test[scored], scores[scored]  # fewer where batches were limited
        if not np.isfinite(scores).all():
            return {}, None  # training diverged, which the errors say
        users, items, ratings = table.user.codes, table.item.codes, table.ratings
        baseline = self.baseline(data)
        users, items, ratings = users[rows], items[rows], ratings[rows]
        sums = error_sums(users, ratings, scores, baseline.score(users, items))
        calibration = calibrate(scores, ratings, users, self.bins)
        model, bias_only = (rmse_and_mae(sums.sum(axis=0), which) for which in (0, 1))
        drawn = resample(sums, self.replicates, self.seed) if len(sums) > 1 else None
        figures = {"calibration_error": calibration.error}
        for at, name in enumerate(("rmse", "mae")):
            figures[f"baseline_{name}"] = float(bias_only[at])
            figures[f"{name}_gain"] = float(bias_only[at] - model[at])
            if drawn is not None:
                errors, others = rmse_and_mae(drawn, 0)[:, at], rmse_and_mae(drawn, 1)[:, at]
                figures[f"{name}_low"], figures[f"{name}_high"] = interval(errors)
                figures[f"{name}_gain_low"], figures[f"{name}_gain_high"] = interval(others - errors)
        return figures, calibration

    def baseline(self, data: RatingsDataModule) -> BiasBaseline:
        """What user and item biases alone have learnt from the training part; kept, as long as it is the same."""
        table, parts = data.table, data.split.parts
        if self._baseline is None or self._baseline[0] is not parts:
            found = fit_baseline(
                table.user.codes, table.item.codes, table.ratings, parts == TRAIN,
                len(table.user.ids), len(table.item.ids), data.given_range,
            )  # fmt: skip
            self._baseline = parts, found
        return self._baseline[1]

    def write(self, folder: Path) -> Path | None:
        """Write the calibration of the last test as `calibration.csv` and, with matplotlib, `calibration.svg`.

        Args:
            folder: must exist.

        Returns:
            The picture, else the table; None without a test.
        """
        if self.calibration is None:
            return None
        columns = {
            name: ["" if np.isnan(value) else f"{value:.6g}" for value in values]
            for name, values in self.calibration._asdict().items()
        }
        bins = range(1, len(self.calibration.rows) + 1)
        written, picture = folder / "calibration.csv", folder / "calibration.svg"
        write_csv(written, {"bin": bins, **columns})
        return picture if draw_calibration(self.calibration, picture) else written


def _data(trainer: Trainer) -> RatingsDataModule:
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, RatingsDataModule):
        raise ConfigError("Evaluation: must be used with a RatingsDataModule; give it to Trainer.test(task, data)")
    return data
