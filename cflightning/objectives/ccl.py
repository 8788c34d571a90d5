"""CCL: cosine contrastive loss (Mao et al. 2021, SimpleX)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from cflightning.errors import ConfigError
from cflightning.objectives.base import RankingObjective
from cflightning.objectives.sampled_loss import SampledLoss, SampledSettings
from cflightning.objectives.settings import SearchRange, TableSize


def ccl_loss(positive: Tensor, negatives: Tensor, *, margin: float = 0.0, weight: float = 1.0) -> Tensor:
    """Return ``1 - s+ + weight * mean over m of max(0, s- - margin)`` (eq. 1), summed over the batch, float32 [].

    The mean is over all m, accidental hits included.

    Args:
        positive: float32 [batch], cosines.
        negatives: float32 [batch, m], cosines.
        margin: Cosine below which a negative costs nothing.
        weight: Weight of the negatives; larger for more of them (in the paper 150 to 1000 for 800 to 2000).

    Raises:
        ConfigError: The margin is not within -1 to 1, or the weight is negative.
    """
    if not -1 <= margin <= 1 or not weight >= 0:
        raise ConfigError(f"ccl: margin must be -1 to 1 and weight at least 0, got {margin} and {weight}")
    costs = (negatives - margin).clamp(min=0).sum() / max(negatives.shape[1], 1)
    return (1 - positive).sum() + weight * costs


@dataclass(frozen=True, kw_only=True)
class CclSettings(SampledSettings):
    """Settings of CCL.

    Attributes:
        negatives: Negative samples of each batch.
        l2: Penalty on the vectors that a sample looks up.
        margin: Cosine below which a negative costs nothing.
        weight: Weight of the negatives.
    """

    negatives: int = 1024
    l2: float | None = 0.0
    margin: float = 0.4
    weight: float = 150.0


class SampledCcl(SampledLoss[CclSettings]):
    """CCL by autograd."""

    cosine = True

    def score_loss(self, positive: Tensor, negatives: Tensor, log_q: Tensor | None) -> Tensor:
        """See `ccl_loss`."""
        return ccl_loss(positive, negatives, margin=self.settings.margin, weight=self.settings.weight)


class Ccl(RankingObjective):
    """Interactions towards cosine 1, negative samples below a margin."""

    name = "ccl"
    settings_class = CclSettings
    sampled_loss = SampledCcl

    def search_space(self, size: TableSize, *, by_autograd: bool) -> dict[str, SearchRange]:
        """Return the ranges of `tune`: margin, weight, dim, learning rate and number of epochs."""
        settings = {"margin": SearchRange(0.0, 0.8), "weight": SearchRange(10.0, 600.0, log=True)}
        return self.gradient_search_space(settings, by_autograd=by_autograd)
