"""Callbacks of the command line."""

from __future__ import annotations

import signal
import threading

from lightning.pytorch import Callback, LightningModule, Trainer


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
