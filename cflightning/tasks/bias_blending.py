"""A finished network leans on biases alone, as far as held-out rows say that these know better."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np
import torch

from cflightning.checkpoint.format import KEY, FileCheckpointIO, read
from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.splits.split import VAL
from cflightning.metrics.baseline import BiasBaseline
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.models.network import RatingScale
from cflightning.tasks.loading import load_task

log = logging.getLogger(__name__)

ROWS = 500
"""Of the validation part, below which nothing is done: few rows say little."""
LEAST = 0.05
"""Share below which nothing is done: the network knows better, as it does wherever there is something to learn."""
DOUBT = 2.0
"""Standard deviation of the share around zero before a row has been looked at."""


def blend_with_biases(path: Path, data: RatingsDataModule, baseline: BiasBaseline) -> float:
    """Mix a checkpoint's network with the biases of a baseline, which is one dot product again.

    Gradients of a few passes leave the biases of rows with few ratings short of where the closed form has them. That
    costs nothing where factors and bags take over what they leave, and up to .4 % of the error where there is
    nothing beyond biases to be learnt. So the logits become ``(1 - share) * network + share * baseline``, with the
    share that predicts the validation rows best (least squares; stacking, Wolpert 1992), between 0 and 1.

    Args:
        path: the checkpoint, changed in place; networks other than `EmbeddingDot`, and those of choices, are left.
        data: that it was trained on.
        baseline: of the same training part.

    Returns:
        The share; 0 where the checkpoint is left as it was.
    """
    task = load_task(path)
    network = task.network
    user, item, rating = data.held_out(data.split.sizes[VAL] or 1)
    if not isinstance(network, EmbeddingDot) or network.rating_range is None or len(user) < ROWS:
        return 0.0
    at_mean, slope = network.scale.inverse(baseline.mean), float(network.scale.slope(baseline.mean))
    vocabulary = task.vocabulary
    assert vocabulary is not None
    biases = [
        _by_row(known.rows(seen.ids.values), values / slope, known.num_rows)
        for known, seen, values in (
            (vocabulary.users, data.table.user, baseline.user), (vocabulary.items, data.table.item, baseline.item),
        )
    ]  # fmt: skip
    users, items, truth = torch.from_numpy(user).long(), torch.from_numpy(item).long(), torch.from_numpy(rating)
    with torch.no_grad():
        logit = network.logit(users, items)
        apart = at_mean + biases[0][users] + biases[1][items] - logit
        share = _share(network.scale, logit, apart, truth)
        if share < LEAST:
            return 0.0
        off = (network.scale(logit + share * apart) - truth).double()
    content = read(path)
    state = content["state_dict"]
    state["network.user_factors.weight"].mul_(1 - share)
    for name, bias in zip(("user", "item"), biases, strict=True):
        state[f"network.{name}_bias.weight"].mul_(1 - share).add_(bias[:, None], alpha=share)
    state["network.global_bias"].mul_(1 - share).add_(share * at_mean)
    figures = content[KEY]["metrics"]
    measured = {"val/rmse": math.sqrt(float(off.square().mean())), "val/mae": float(off.abs().mean())}
    figures.update({name: value for name, value in measured.items() if name in figures})
    FileCheckpointIO().save_checkpoint(content, path)
    log.info("the validation rows give biases alone a share of %.2g in the answers", share)
    return share


def _by_row(rows: np.ndarray, values: np.ndarray, count: int) -> torch.Tensor:
    """Values of ids as float32 [count], by table row; ids without a row are dropped, and row 0 is zero."""
    found = np.zeros(count, np.float32)
    found[rows] = values
    found[0] = 0
    return torch.from_numpy(found)


def _share(scale: RatingScale, logit: torch.Tensor, apart: torch.Tensor, truth: torch.Tensor) -> float:
    """Of the way from one set of logits to another that is best to go, by least squares on a linearised scale."""
    score = scale(logit)
    way = (apart * scale.slope(score)).double().numpy()
    error = (truth - score).double().numpy()
    noise, squares = float((error * error).mean()), float((way * way).sum())
    if noise == 0 or squares == 0:
        return 0.0
    found = float((way * error).sum()) / (squares + noise / DOUBT**2)
    return min(max(found, 0.0), 1.0)
