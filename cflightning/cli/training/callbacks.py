"""Callbacks of the command line: progress by lines, and the handling of SIGTERM."""

from __future__ import annotations

import logging
import signal
import threading
import time

from lightning.pytorch import Callback, LightningModule, Trainer

log = logging.getLogger(__name__)


class EpochLines(Callback):
    """Logs one line for the model and one for every epoch, instead of a progress bar that would fill a file."""

    def __init__(self) -> None:
        self._began = 0.0
        self._ended: tuple[int, float] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the number of parameters."""
        parameters = sum(parameter.numel() for parameter in pl_module.parameters())
        log.info("%s on %s: %s parameters", type(pl_module).__name__, pl_module.device.type, f"{parameters:,}")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the previous epoch, whose loss is available only here, and start the clock."""
        self._log_epoch(trainer)
        self._began = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._ended = trainer.current_epoch + 1, time.perf_counter() - self._began

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the last epoch."""
        self._log_epoch(trainer)

    def _log_epoch(self, trainer: Trainer) -> None:
        """Log the loss and the metric by which the best epoch is chosen."""
        if self._ended is None:
            return
        (epoch, seconds), self._ended = self._ended, None
        monitored = getattr(trainer.checkpoint_callback, "monitor", None)
        names = dict.fromkeys(name for name in ("train/loss", monitored) if name in trainer.callback_metrics)
        metrics = "".join(f"{name} {float(trainer.callback_metrics[name]):.4f}, " for name in names)
        planned = f" of {trainer.max_epochs}" if (trainer.max_epochs or 0) > 0 else ""
        log.info("epoch %d%s: %s%.1f s", epoch, planned, metrics, seconds)


class KeepSigtermHandler(Callback):
    """Keeps the SIGTERM handler of the process while a Trainer runs.

    Lightning installs its own, which waits for the end of a step and, with several processes, for the other processes,
    which may wait for this one in turn.
    """

    def __init__(self) -> None:
        self.handler = signal.getsignal(signal.SIGTERM)

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the handler, which Lightning has just replaced."""
        if callable(self.handler) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self.handler)

    # A fit begins with `on_train_start` if there is no sanity check.
    on_train_start = on_validation_start = on_test_start = on_predict_start = on_sanity_check_start
