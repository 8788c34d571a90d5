"""Blending of a trained model with the bias-only baseline, weighted by validation error."""

from __future__ import annotations

import copy
import logging
import math
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Trainer

from cflightning.checkpoint.format import KEY, FileCheckpointIO, read_checkpoint
from cflightning.checkpoint.paths import best_checkpoint
from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.splits.split import VAL
from cflightning.data.vocabulary import Vocabulary
from cflightning.evaluation.ratings import RatingEvaluation
from cflightning.metrics.baseline import BiasBaseline
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.models.network import ScoringNetwork
from cflightning.tasks.regularisation.ridge import Slope, regression_slope

log = logging.getLogger(__name__)

MIN_ROWS = 500
"""Number of validation rows below which nothing is blended: their estimate of the share is too uncertain."""
MIN_SHARE = 0.05
"""Share of the baseline below which nothing is blended, as is usual where factors explain anything."""
PRIOR = Slope(0.0, 2.0)
"""Prior of the share, with the standard deviation for one validation row."""
PREFIX = "network."
"""Prefix of the served network's tables in a checkpoint."""


def blend_best_checkpoint(trainer: Trainer, network: ScoringNetwork, vocabulary: Vocabulary) -> None:
    """Blend the best checkpoint of a fit with the biases, if it is a local file of this run; the first process does so.

    The network in memory stays that of the last epoch, and other checkpoints stay as they are, to be resumed exactly.

    Args:
        trainer: Trainer of the fit.
        network: Served network of the fit; networks other than `EmbeddingDot` and ranking networks are not blended.
        vocabulary: Vocabulary of the network.
    """
    data, best = getattr(trainer, "datamodule", None), best_checkpoint(trainer)
    if not trainer.is_global_zero or not best or "://" in best:
        return
    if not isinstance(network, EmbeddingDot) or network.rating_range is None:
        return
    if not isinstance(data, RatingsDataModule) or data.split.sizes[VAL] < MIN_ROWS:
        return
    callbacks: list[object] = trainer.callbacks  # type: ignore[attr-defined]
    evaluation = next(
        (callback for callback in callbacks if isinstance(callback, RatingEvaluation)), RatingEvaluation()
    )
    blend_checkpoint(Path(best), network, vocabulary, data, evaluation.baseline(data))


def blend_checkpoint(
    path: Path, network: EmbeddingDot, vocabulary: Vocabulary, data: RatingsDataModule, baseline: BiasBaseline
) -> float:
    """Blend the served network of a checkpoint with the biases of a baseline; the result is again one dot product.

    A few epochs of gradient steps leave the biases of users and items with few ratings short of their closed form. This
    costs nothing where factors and SVD++ terms make up for it, and up to .4 % of the error where there is nothing but
    biases to learn. So the logits become ``(1 - share) * network + share * baseline``, with the share between 0 and 1
    that fits the validation rows best (least squares; stacking, Wolpert 1992).

    Args:
        path: Checkpoint, changed in place.
        network: Network with a rating range and the sizes of the checkpoint; stays as it is.
        vocabulary: Vocabulary of the checkpoint.
        data: Data that it was trained on.
        baseline: Baseline of the same training part.

    Returns:
        The share of the baseline; 0 if the checkpoint stays as it is.
    """
    user, item, rating = data.validation_ratings(data.split.sizes[VAL])
    if len(user) < MIN_ROWS:
        return 0.0
    content = read_checkpoint(path)
    state, metrics = content["state_dict"], content[KEY]["metrics"]
    network = copy.deepcopy(network).cpu().float().eval()
    network.load_state_dict({name.removeprefix(PREFIX): state[name] for name in state if name.startswith(PREFIX)})
    mean_logit, slope = network.scale.inverse(baseline.mean), float(network.scale.slope(baseline.mean))
    user_bias = _by_index(
        vocabulary.users.indices(data.table.user.ids.values), baseline.user / slope, network.num_users
    )
    item_bias = _by_index(
        vocabulary.items.indices(data.table.item.ids.values), baseline.item / slope, network.num_items
    )
    users, items, truth = torch.from_numpy(user).long(), torch.from_numpy(item).long(), torch.from_numpy(rating)
    with torch.no_grad():
        logit = network.logit(users, items)
        score = network.scale(logit)
        difference = mean_logit + user_bias[users] + item_bias[items] - logit
        change = (difference * network.scale.slope(score)).double().numpy()
        share = min(max(regression_slope(change, (truth - score).double().numpy(), PRIOR).value, 0.0), 1.0)
        if share < MIN_SHARE:
            return 0.0
        error = (network.scale(logit + share * difference) - truth).double()
    tables = network.tables()
    tables.user_vectors.mul_(1 - share)
    tables.user_bias.mul_(1 - share).add_(user_bias, alpha=share)
    tables.item_bias.mul_(1 - share).add_(item_bias, alpha=share)
    tables.global_bias.mul_(1 - share).add_(share * mean_logit)
    state |= {f"{PREFIX}{name}": table for name, table in network.state_dict().items()}
    blended = {"val/rmse": math.sqrt(float(error.square().mean())), "val/mae": float(error.abs().mean())}
    metrics |= {name: value for name, value in blended.items() if name in metrics}
    FileCheckpointIO().save_checkpoint(content, path)
    log.info("blended with the bias-only model at a share of %.2g, which lowers the validation error", share)
    return share


def _by_index(indices: np.ndarray, values: np.ndarray, count: int) -> torch.Tensor:
    """Return values of ids by index, float32 [count]; ids without an index are dropped, and index 0 has zero."""
    table = np.zeros(count, np.float32)
    table[indices] = values
    table[0] = 0
    return torch.from_numpy(table)
