"""Blending of a trained model with the bias-only baseline, weighted by validation error."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np
import torch

from cflightning.checkpoint.format import KEY, FileCheckpointIO, read_checkpoint
from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.splits.split import VAL
from cflightning.metrics.baseline import BiasBaseline
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.models.network import RatingScale
from cflightning.tasks.loading import load_task

log = logging.getLogger(__name__)

MIN_ROWS = 500
"""Number of validation rows below which nothing is blended: their estimate of the share is too uncertain."""
MIN_SHARE = 0.05
"""Share of the baseline below which nothing is blended, as is usual where factors explain anything."""
PRIOR_STD = 2.0
"""Standard deviation of the prior of the share, a normal distribution around zero, for one validation row."""


def blend_with_biases(path: Path, data: RatingsDataModule, baseline: BiasBaseline) -> float:
    """Blend the network of a checkpoint with the biases of a baseline; the result is again one dot product.

    A few epochs of gradient steps leave the biases of users and items with few ratings short of their closed form. This
    costs nothing where factors and SVD++ terms make up for it, and up to .4 % of the error where there is nothing but
    biases to learn. So the logits become ``(1 - share) * network + share * baseline``, with the share between 0 and 1
    that fits the validation rows best (least squares; stacking, Wolpert 1992).

    Args:
        path: Checkpoint, changed in place; networks other than `EmbeddingDot` and ranking networks stay as they are.
        data: Data that it was trained on.
        baseline: Baseline of the same training part.

    Returns:
        The share of the baseline; 0 if the checkpoint stays as it is.
    """
    task = load_task(path)
    network = task.network
    user, item, rating = data.validation_ratings(data.split.sizes[VAL] or 1)
    if not isinstance(network, EmbeddingDot) or network.rating_range is None or len(user) < MIN_ROWS:
        return 0.0
    mean_logit, slope = network.scale.inverse(baseline.mean), float(network.scale.slope(baseline.mean))
    vocabulary = task.vocabulary
    assert vocabulary is not None
    user_bias, item_bias = (
        _by_index(known.indices(column.ids.values), values / slope, known.num_embeddings)
        for known, column, values in (
            (vocabulary.users, data.table.user, baseline.user), (vocabulary.items, data.table.item, baseline.item),
        )
    )  # fmt: skip
    users, items, truth = torch.from_numpy(user).long(), torch.from_numpy(item).long(), torch.from_numpy(rating)
    with torch.no_grad():
        logit = network.logit(users, items)
        difference = mean_logit + user_bias[users] + item_bias[items] - logit
        share = _best_share(network.scale, logit, difference, truth)
        if share < MIN_SHARE:
            return 0.0
        error = (network.scale(logit + share * difference) - truth).double()
    content = read_checkpoint(path)
    state = content["state_dict"]
    state["network.user_factors.weight"].mul_(1 - share)
    for name, bias in (("user", user_bias), ("item", item_bias)):
        state[f"network.{name}_bias.weight"].mul_(1 - share).add_(bias[:, None], alpha=share)
    state["network.global_bias"].mul_(1 - share).add_(share * mean_logit)
    metrics = content[KEY]["metrics"]
    blended = {"val/rmse": math.sqrt(float(error.square().mean())), "val/mae": float(error.abs().mean())}
    metrics.update({name: value for name, value in blended.items() if name in metrics})
    FileCheckpointIO().save_checkpoint(content, path)
    log.info("blended with the bias-only model at a share of %.2g, which lowers the validation error", share)
    return share


def _by_index(indices: np.ndarray, values: np.ndarray, count: int) -> torch.Tensor:
    """Return values of ids by index, float32 [count]; ids without an index are dropped, and index 0 has zero."""
    table = np.zeros(count, np.float32)
    table[indices] = values
    table[0] = 0
    return torch.from_numpy(table)


def _best_share(scale: RatingScale, logit: torch.Tensor, difference: torch.Tensor, truth: torch.Tensor) -> float:
    """Return the share of a difference of logits that fits ratings best, by least squares on a linearised scale."""
    score = scale(logit)
    change = (difference * scale.slope(score)).double().numpy()
    error = (truth - score).double().numpy()
    noise, squares = float((error * error).mean()), float((change * change).sum())
    if noise == 0 or squares == 0:
        return 0.0
    share = float((change * error).sum()) / (squares + noise / PRIOR_STD**2)
    return min(max(share, 0.0), 1.0)
