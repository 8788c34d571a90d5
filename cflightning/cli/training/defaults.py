"""Options of the callbacks that are on by default, and run settings that depend on the objective and the engine."""

from __future__ import annotations

import json

import torch
from jsonargparse import Namespace
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LRSchedulerTypeTuple

from cflightning.engines.base import DEFAULT_EPOCHS, DEFAULT_SWEEPS
from cflightning.objectives.registry import find_objectives
from cflightning.tasks.objective_options import default_objective

PATIENCE = 3
"""Epochs without improvement before training stops."""
RANKING_PATIENCE = 10
"""The same for ranking objectives, whose nDCG changes little from epoch to epoch."""
RATING_METRIC, RANKING_METRIC = "val/rmse", "val/ndcg@10"
"""Metric by which the best epoch is chosen."""


def add_options(parser: LightningArgumentParser) -> None:
    """Add optimiser, schedule, early stopping and two checkpoint callbacks, with the defaults of this project."""
    # Linked as descriptions: LightningCLI's own link would instantiate them before the network has parameters.
    parser.add_optimizer_args((torch.optim.Optimizer,))
    parser.add_lr_scheduler_args(LRSchedulerTypeTuple)
    for key in ("optimizer", "lr_scheduler"):
        parser.link_arguments(key, f"model.init_args.{key}", compute_fn=_as_plain_dict)
    parser.add_lightning_class_args(EarlyStopping, "early_stopping")
    parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
    # Two callbacks, since `save_last` of one saves only when the best epoch improves.
    parser.add_lightning_class_args(ModelCheckpoint, "last_checkpoint")
    parser.link_arguments("checkpoint.dirpath", "last_checkpoint.dirpath")
    parser.set_defaults(
        {
            "model": {"class_path": "cflightning.EmbeddingDotTask"},
            "data": {"class_path": "cflightning.RatingsDataModule"},
            "early_stopping.monitor": RATING_METRIC,
            "early_stopping.patience": PATIENCE,
            "early_stopping.strict": False,  # a run can end before its first validation
            "checkpoint.monitor": RATING_METRIC,
            "checkpoint.filename": "best",
            "checkpoint.enable_version_counter": False,
            "checkpoint.save_on_train_epoch_end": True,  # when the training loss of the epoch is known as well
            "last_checkpoint.filename": "last",
            "last_checkpoint.mode": "max",  # without effect, but the states of the two callbacks need different keys
            "last_checkpoint.enable_version_counter": False,
            "last_checkpoint.save_on_train_epoch_end": True,
        }
    )


def _as_plain_dict(description: Namespace | None) -> dict[str, object] | None:
    # Through JSON, because YAML has no tuples and config.yaml must hold what was given.
    return None if description is None else dict(json.loads(json.dumps(description.as_dict())))


def resolve_objective(config: Namespace) -> str:
    """Return the objective of a run: the option, or the default for its data and device.

    Args:
        config: Configuration of the subcommand.
    """
    settings = config.model.init_args
    objective = settings.get("objective", "mse")
    if objective is not None:
        return str(objective)
    implicit = config.data.init_args.get("feedback") == "implicit"
    return default_objective(implicit, _requests_autograd(config))


def _requests_autograd(config: Namespace) -> bool:
    """Return whether the engine or the device of a run requests autograd for a ranking objective."""
    on_gpu = config.trainer.accelerator != "cpu" and torch.cuda.is_available()
    return config.model.init_args.get("engine") == "autograd" or on_gpu


def set_run_defaults(config: Namespace) -> None:
    """Set the epochs, the patience and the metric of the best epoch, where the user left the general defaults.

    Args:
        config: Configuration of the subcommand; changed in place.
    """
    settings = config.model.init_args
    ranking, sampling = find_objectives(resolve_objective(config)).ranking_alone, settings.get("engine") == "gibbs"
    if config.trainer.max_epochs is None:
        epochs = ranking and ranking.default_epochs(by_autograd=_requests_autograd(config))
        config.trainer.max_epochs = DEFAULT_SWEEPS if sampling else epochs or DEFAULT_EPOCHS
    if sampling and config.early_stopping.patience == PATIENCE:
        config.early_stopping.patience = DEFAULT_SWEEPS // 2  # the mean of the draws improves slowly
    if ranking is not None:
        for callback in (config.checkpoint, config.early_stopping):
            if callback.monitor == RATING_METRIC:
                callback.monitor, callback.mode = RANKING_METRIC, "max"
        if config.early_stopping.patience == PATIENCE:
            config.early_stopping.patience = RANKING_PATIENCE
