"""What is minimised where choices are known and not ratings: the scores of a choice and of negatives, items not chosen.

All take ``positive``, float32 [batch], and ``negatives``, float32 [batch, m]: the scores of each choice's own negatives
or of negatives that the batch shares. A negative whose score is -inf takes no part, see `scores.pair_scores`. All
return the sum over the batch, float32 [].
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

from cflightning.errors import ConfigError


def logistic(positive: Tensor, negatives: Tensor) -> Tensor:
    """Binary cross-entropy: the choice is a 1 and each negative a 0 (He et al. 2017, eq. 7; Rendle et al. 2020).

    ``softplus(-s+) + sum over m of softplus(s-)``: a negative counts as much as the choice does.

    Args:
        positive: float32 [batch], logits.
        negatives: float32 [batch, m], logits.
    """
    return softplus(-positive).sum() + softplus(negatives).sum()


def bpr(positive: Tensor, negatives: Tensor) -> Tensor:
    """Bayesian personalised ranking: the choice goes before a negative (Rendle et al. 2009, section 4.1).

    ``mean over m of -log sigmoid(s+ - s-)``; the paper has m = 1. The mean is over all m, those that take no part
    included.

    Args:
        positive: float32 [batch].
        negatives: float32 [batch, m].
    """
    return softplus(negatives - positive[:, None]).sum() / max(negatives.shape[1], 1)


def softmax(
    positive: Tensor,
    negatives: Tensor,
    *,
    temperature: float = 1.0,
    log_q: Tensor | None = None,
    inside: bool = True,
) -> Tensor:
    """Sampled softmax: the choice among the negatives (Wu et al. 2022, "SL" and "SSM").

    ``log(inside e^(s+ / t) + sum over m of e^(s- / t)) - s+ / t``. With cosines as scores, t decides how much the
    hardest negatives count.

    With `log_q` each negative counts ``1 / (m q)`` times, so that the sum is an unbiased estimate of that over all
    items, whatever they are drawn by (Bengio & Senécal 2008); without it, the more often an item is drawn the lower it
    ends. Yi et al. 2019 correct the score of the choice as well; here it counts as it is.

    Args:
        positive: float32 [batch].
        negatives: float32 [batch, m].
        temperature: t, above 0.
        log_q: float32 [batch, m] or [m], log of the probability that a draw is that item; None for all alike.
        inside: whether the choice is in the denominator too. Without it, at least one negative of each must take part.

    Raises:
        ConfigError: the temperature is not above 0.
    """
    if not temperature > 0:
        raise ConfigError(f"softmax: temperature must be above 0, got {temperature}")
    positive, negatives = positive / temperature, negatives / temperature
    if log_q is not None:
        negatives = negatives - log_q - math.log(max(negatives.shape[1], 1))
    terms = torch.cat([positive[:, None], negatives], 1) if inside else negatives
    return (torch.logsumexp(terms, 1) - positive).sum()


def ccl(positive: Tensor, negatives: Tensor, *, margin: float = 0.0, weight: float = 1.0) -> Tensor:
    """Cosine contrastive loss: choices up to 1, negatives down to the margin and no further (Mao et al. 2021, eq. 1).

    ``1 - s+ + weight * mean over m of max(0, s- - margin)``. The mean is over all m, those that take no part included.

    Args:
        positive: float32 [batch], cosines.
        negatives: float32 [batch, m], cosines.
        margin: cosine below which a negative costs nothing.
        weight: of the negatives; the more of them there are, the higher (the paper: 150 to 1000 for 800 to 2000).

    Raises:
        ConfigError: the margin is not within -1 to 1, or the weight negative.
    """
    if not -1 <= margin <= 1 or not weight >= 0:
        raise ConfigError(f"ccl: margin must be -1 to 1 and weight at least 0, got {margin} and {weight}")
    costs = (negatives - margin).clamp(min=0).sum() / max(negatives.shape[1], 1)
    return (1 - positive).sum() + weight * costs
