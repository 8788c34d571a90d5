"""Training from the command line: a stock LightningCLI with this project's defaults."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.trainer import Trainer
from lightning_utilities.core.rank_zero import rank_zero_only

from cflightning.data.datamodule import RatingsDataModule
from cflightning.report import RunReport, write_predictions
from cflightning.tasks.rating import RatingTask


class CFLightningCLI(LightningCLI):
    """Adds early stopping, checkpoints, loggers and the report of a run; `fit` ends by testing the best checkpoint."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Callbacks that are on by default, with their options."""
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "model": {"class_path": "cflightning.EmbeddingDotTask"},
                "data": {"class_path": "cflightning.RatingsDataModule"},
                "early_stopping.monitor": "val/rmse",
                "early_stopping.patience": 3,
                "checkpoint.monitor": "val/rmse",
                "checkpoint.filename": "best",
                "checkpoint.save_last": True,
                "checkpoint.enable_version_counter": False,
                "checkpoint.auto_insert_metric_name": False,
            }
        )

    def before_instantiate_classes(self) -> None:
        """Without a validation part there is nothing to stop by: train to the end and keep the last epoch."""
        config = self.config[self.subcommand]
        if config.data.init_args.get("val_fraction") == 0 and config.get("checkpoint") is not None:
            config.checkpoint.monitor = None
            config.early_stopping.monitor = "train/loss"
            config.early_stopping.check_on_train_epoch_end = True
            config.early_stopping.patience = 1_000_000

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """A Trainer with the project's loggers and a calmer progress bar, unless the config names others."""
        config = self.config_init[self.subcommand]["trainer"]
        callbacks = list(config["callbacks"] or [])
        if config["enable_progress_bar"] is not False and not any(hasattr(c, "refresh_rate") for c in callbacks):
            callbacks.append(TQDMProgressBar(refresh_rate=20))  # drawing every step costs more than the step
        self.report = RunReport()
        kwargs["callbacks"] = [*callbacks, self.report]
        if self.subcommand == "fit" and config["logger"] in (None, True):
            kwargs["logger"] = loggers(Path(config["default_root_dir"] or "runs"))
        elif self.subcommand != "fit" and config["logger"] is None:
            kwargs["logger"] = False
        return super().instantiate_trainer(**kwargs)

    def after_fit(self) -> None:
        """Test the best checkpoint and write the report."""
        if self.config_init[self.subcommand]["trainer"]["fast_dev_run"]:
            return
        kept = self.trainer.checkpoint_callback
        best = kept.best_model_path if isinstance(kept, ModelCheckpoint) else ""
        if len(self.datamodule.split.test):
            self.trainer.test(self.model, datamodule=self.datamodule, ckpt_path=best or None, verbose=False)
        self.report.finish(self.trainer, best)

    def after_predict(self) -> None:
        """Write the scores beside the table's ids."""
        write_predictions(self.trainer, self.datamodule, Path(self.trainer.default_root_dir) / "predictions.csv")


def loggers(root: Path) -> list[Logger]:
    """CSV always, TensorBoard where it is installed; both in one new folder `root/version_N`."""
    csv = CSVLogger(save_dir=str(root), name="")
    found: list[Logger] = [csv]
    try:
        import tensorboard  # noqa: F401
        from lightning.pytorch.loggers import TensorBoardLogger
    except ImportError:
        return found
    return [*found, TensorBoardLogger(save_dir=str(root), name="", version=csv.version)]


@rank_zero_only
def _show_progress() -> None:
    """Let the library's own log lines be seen; only the first process speaks."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    library = logging.getLogger("cflightning")
    if not library.handlers:
        library.addHandler(handler)
        library.setLevel(logging.INFO)


def main(args: ArgsType = None, *, started: float | None = None) -> CFLightningCLI:
    """Run `fit`, `validate`, `test` or `predict`.

    Args:
        args: Command-line arguments; None for those of the process.
        started: `time.perf_counter()` when the process began, for the report.

    Returns:
        The CLI, with `trainer`, `model` and `datamodule`.
    """
    _show_progress()
    now = time.perf_counter()
    RunReport.started = now if started is None else started
    RunReport.imported = now
    return CFLightningCLI(
        RatingTask,
        RatingsDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        save_config_kwargs={"overwrite": True},
        trainer_defaults={"max_epochs": 10, "default_root_dir": "runs"},
        parser_kwargs={"prog": "python -m cflightning"},
        args=args,
    )
