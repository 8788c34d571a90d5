"""Ranking losses by autograd: batches of interactions with negative samples, on any number of devices of any kind.

The losses of scores take ``positive``, float32 [batch], the score of each interaction, and ``negatives``, float32
[batch, m], those of its own negative samples or of samples that the batch shares. A negative with score -inf (see
`pair_scores`) is ignored. All return the sum over the batch, float32 [].
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, Self, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from cflightning.data.loaders.interactions import InteractionBatch, InteractionLoader
from cflightning.data.loaders.negative_sampling import (
    InBatchNegatives,
    NegativeSampler,
    UniformNegatives,
    accidental_hits,
)
from cflightning.errors import ConfigError
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.objectives.settings import RankingSettings, TableSize, setting
from cflightning.objectives.solver import InteractionColumns
from cflightning.solvers.lightgcn import Smoothing
from cflightning.utils.interactions import make_interactions


def default_l2(interactions: int) -> float:
    """Return the default penalty, larger for fewer interactions; from data sets of 75,000 and 994,000."""
    return float(0.005 * min(max(interactions / 1e6, 0.02), 1.0) ** -0.45)


@dataclass(frozen=True, kw_only=True)
class SampledSettings(RankingSettings):
    """Settings that all objectives with a sampled loss share.

    Attributes:
        negatives: Negative samples of each interaction, or of each batch where the batch shares them.
        l2: Penalty on the vectors that a sample looks up; None for `default_l2`.
        in_batch: Whether the other items of the batch are the negative samples.
        dropout: Share of the entries of user vectors that are set to 0 in training.
        smooth: Share of its neighbours' vectors that is added to each user's and item's vector, in training as well;
            see `Smoothing`.
    """

    negatives: int = 8
    l2: float | None = None
    in_batch: bool = setting(autograd=False)
    dropout: float = setting(autograd=0.0)
    smooth: float = setting(autograd=0.0)

    def resolve(self, size: TableSize) -> Self:
        """Return the settings with the default penalty, if none is given."""
        return replace(self, l2=default_l2(size.interactions)) if self.l2 is None else self


SampledSettingsT = TypeVar("SampledSettingsT", bound=SampledSettings)


class SampledLoss(ABC, Generic[SampledSettingsT]):
    """A ranking loss of interactions and negative samples.

    Args:
        settings: Complete settings of the objective.
        interactions: Interactions of the training part.
        size: Size of the training part.

    Attributes:
        smoothing: Smoothing through which the vectors are trained, or None.
    """

    cosine: ClassVar[bool] = False
    """True if scores are cosines: served vectors have length 1, there are no biases, and a batch shares its samples."""
    user_biases: ClassVar[bool] = False
    """True if user biases and the global bias are used; they cancel out in pairwise losses."""
    averages_negatives: ClassVar[bool] = False
    """True if the m negative samples of an interaction together count as one."""

    def __init__(self, settings: SampledSettingsT, interactions: InteractionColumns, size: TableSize) -> None:
        self.settings = settings
        self.smoothing: Smoothing | None = None
        if settings.smooth:
            matrices = make_interactions(interactions.user, interactions.item, size.users, size.items)
            self.smoothing = Smoothing(matrices, settings.smooth)

    @abstractmethod
    def score_loss(self, positive: Tensor, negatives: Tensor, log_q: Tensor | None) -> Tensor:
        """Return the summed loss of scores: float32 [batch] and [batch, m] -> [].

        Args:
            positive: Scores of the interactions.
            negatives: Scores of their negative samples.
            log_q: float32 [batch, m] or [m], log-probability of each sample; None if all are alike.
        """

    @property
    def unused_parameters(self) -> tuple[str, ...]:
        """Names of the network's unused parameters."""
        biases = () if self.user_biases else ("user_bias.weight", "global_bias")
        return (*biases, "item_bias.weight") if self.cosine else biases

    @classmethod
    def serves_other_tables(cls, smooth: float) -> bool:
        """Return whether the served tables differ from the trained ones: normalised or smoothed.

        Args:
            smooth: Setting `smooth`.
        """
        return cls.cosine or bool(smooth)

    def tables(self, network: EmbeddingDot) -> tuple[Tensor, Tensor]:
        """Return the served vectors: float32 [num_users, dim] and [num_items, dim]."""
        users, items = network.user_factors.weight, network.item_factors.weight
        if self.cosine:
            users, items = normalize(users, dim=-1), normalize(items, dim=-1)
        return (users, items) if self.smoothing is None else self.smoothing(users, items)

    def loss(self, network: EmbeddingDot, batch: InteractionBatch) -> Tensor:
        """Return the summed loss of a batch, with the penalty on the vectors that it looks up: float32 []."""
        if self.smoothing is None:  # rows alone: normalising whole tables would fill whole gradients
            p, q = network.user_factors(batch.user), network.item_factors(batch.item)
            n = network.item_factors(batch.negatives)
            if self.cosine:
                p, q, n = (normalize(vectors, dim=-1) for vectors in (p, q, n))  # zeros stay zeros
        else:
            users, items = self.tables(network)
            p, q, n = users[batch.user], items[batch.item], items[batch.negatives]
        positive, negatives = pair_scores(
            dropout_entries(p, self.settings.dropout), q, n, accidental_hits(batch.item, batch.negatives)
        )
        if not self.cosine:
            bias = network.item_bias.weight.squeeze(-1)
            positive, negatives = positive + bias[batch.item], negatives + bias[batch.negatives]
            if self.user_biases:
                base = network.global_bias + network.user_bias(batch.user).squeeze(-1)
                positive, negatives = positive + base, negatives + base[:, None]
        total = self.score_loss(positive, negatives, batch.log_q)
        if l2 := self.settings.l2:  # every sample pays for the vectors that it looks up
            m = negatives.shape[1]
            drawn = n.square().sum() * (len(p) if n.dim() == 2 else 1)  # shared ones meet every interaction
            times = 1 / m if self.averages_negatives else 1.0
            total = total + l2 / 2 * ((1 + m * times) * p.square().sum() + q.square().sum() + times * drawn)
        return total

    def loader(self, counts: Tensor) -> Callable[..., InteractionLoader]:
        """Return a function that makes the dataloader, with the arguments of `RatingLoader`.

        Args:
            counts: int64 [num_items], training interactions of each item.
        """
        negatives: NegativeSampler = (
            InBatchNegatives(counts)
            if self.settings.in_batch
            else UniformNegatives(len(counts), self.settings.negatives, shared=self.cosine)
        )

        def make(user: Tensor, item: Tensor, rating: Tensor, **options: Any) -> InteractionLoader:
            known = (user > 0) & (item > 0)
            return InteractionLoader(user[known], item[known], negatives, **options)

        return make


def dropout_entries(vectors: Tensor, share: float) -> Tensor:
    """Set a share of the entries to 0 and scale the others up by as much (Srivastava et al. 2014).

    Args:
        vectors: float32 [batch, dim].
        share: Share of the entries, from 0 to below 1.

    Raises:
        ConfigError: The share is out of range.
    """
    if not 0 <= share < 1:
        raise ConfigError(f"dropout: share must be at least 0 and below 1, got {share}")
    if share == 0:
        return vectors
    kept = torch.rand(vectors.shape, device=vectors.device) >= share
    return vectors * kept / (1 - share)


def pair_scores(users: Tensor, items: Tensor, negatives: Tensor, hits: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the dot products of every user with the chosen item and with the negative samples.

    Shared samples cost one matrix product; own samples are looked up one by one, which takes many times as long.

    Args:
        users: float32 [batch, dim].
        items: float32 [batch, dim].
        negatives: float32 [m, dim], shared by the batch, or [batch, m, dim].
        hits: bool [batch, m], accidental hits, which get score -inf and are ignored.

    Returns:
        float32 [batch] and [batch, m].
    """
    positive = torch.linalg.vecdot(users, items)
    if negatives.dim() == 2:
        scores = users @ negatives.mT
    else:
        scores = torch.linalg.vecdot(users[:, None], negatives)
    return positive, scores if hits is None else scores.masked_fill(hits, -math.inf)
