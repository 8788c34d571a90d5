"""Callbacks and plugins of the Trainer, unless the options have others."""

from __future__ import annotations

import sys

from jsonargparse import Namespace
from lightning.fabric.plugins import CheckpointIO, ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, TQDMProgressBar
from lightning.pytorch.trainer import Trainer

from cflightning.checkpoint.format import FileCheckpointIO
from cflightning.cli.run_folders import single_task
from cflightning.cli.training.callbacks import EpochLines, KeepSigtermHandler


def choose_callbacks(settings: Namespace, default_callbacks: list[Callback]) -> list[Callback]:
    """Return the callbacks of the options and of this project, with progress as a bar or, in a file, as lines.

    Args:
        settings: Options of the Trainer; the progress bar is turned off in place.
        default_callbacks: Callbacks of the command.
    """
    callbacks: list[Callback] = [*(settings["callbacks"] or []), *default_callbacks, KeepSigtermHandler()]
    bar = any(hasattr(callback, "refresh_rate") for callback in callbacks)
    if settings["enable_progress_bar"] is None and not bar and not sys.stdout.isatty():
        settings["enable_progress_bar"] = False  # a file would hold every redraw
        callbacks.append(EpochLines())
    elif settings["enable_progress_bar"] is not False and not bar:
        callbacks.append(TQDMProgressBar(refresh_rate=20))  # a redraw at every step costs more than the step
    return callbacks


def choose_plugins(settings: Namespace, checkpoints: str) -> list[object]:
    """Return the plugins of the options and of this project.

    Args:
        settings: Options of the Trainer.
        checkpoints: Checkpoint folder of the options, or empty.
    """
    plugins = settings["plugins"] or []
    plugins = [*plugins] if isinstance(plugins, list) else [plugins]
    if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
        plugins.append(FileCheckpointIO(checkpoints if "://" in checkpoints else None))
    if single_task(settings.as_dict()) and not any(isinstance(plugin, ClusterEnvironment) for plugin in plugins):
        plugins.append(LightningEnvironment())
    return plugins


def keep_last_epoch(trainer: Trainer, config: Namespace) -> None:
    """Make a fit without validation part train without early stopping and keep its last epoch.

    Args:
        trainer: The Trainer.
        config: Configuration of the fit, with its callbacks.
    """
    config["checkpoint"].monitor, config["checkpoint"].mode = None, "min"  # `last_checkpoint` has max
    # Stops only if the loss is not finite.
    stopping = EarlyStopping("train/loss", patience=1_000_000, check_on_train_epoch_end=True)
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    callbacks[callbacks.index(config["early_stopping"])] = stopping
