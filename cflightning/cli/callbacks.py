"""Callbacks of the command line."""

from __future__ import annotations

import logging
import signal
import threading
import time

from lightning.pytorch import Callback, LightningModule, Trainer

log = logging.getLogger(__name__)


class EpochLines(Callback):
    """Logs a line for the model and one for every epoch, where a progress bar would fill a file."""

    _ended: tuple[int, float] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the size of the model."""
        numbers = sum(parameter.numel() for parameter in pl_module.parameters())
        log.info("%s on %s: %s parameters", type(pl_module).__name__, pl_module.device.type, f"{numbers:,}")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell the epoch before, whose loss is known only now, and start the clock."""
        self._tell(trainer)
        self._since = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._ended = trainer.current_epoch + 1, time.perf_counter() - self._since

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell the last epoch."""
        self._tell(trainer)

    def _tell(self, trainer: Trainer) -> None:
        """Log the loss and the figure that the best epoch is chosen by."""
        if self._ended is None:
            return
        (epoch, spent), self._ended = self._ended, None
        monitored = getattr(trainer.checkpoint_callback, "monitor", None)
        names = dict.fromkeys(name for name in ("train/loss", monitored) if name in trainer.callback_metrics)
        figures = "".join(f"{name} {float(trainer.callback_metrics[name]):.4f}, " for name in names)
        planned = f" of {trainer.max_epochs}" if (trainer.max_epochs or 0) > 0 else ""
        log.info("epoch %d%s: %s%.1f s", epoch, planned, figures, spent)


class StopAtOnce(Callback):
    """Keeps the SIGTERM handler of the process while a Trainer works.

    Lightning's own waits for the end of a step, and in several processes for the other ones, which may wait for this
    one in turn.
    """

    def __init__(self) -> None:
        self.handler = signal.getsignal(signal.SIGTERM)

    def _keep(self) -> None:
        if callable(self.handler) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self.handler)

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the handler back from Lightning, which has just set its own."""
        self._keep()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Likewise, without a sanity check."""
        self._keep()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Likewise, of `validate`."""
        self._keep()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Likewise, of `test`."""
        self._keep()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Likewise, of `predict`."""
        self._keep()
