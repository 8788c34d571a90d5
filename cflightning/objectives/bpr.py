"""BPR: Bayesian personalised ranking (Rendle et al. 2009)."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus

from cflightning.objectives.base import RankingObjective
from cflightning.objectives.bce import search_ranges
from cflightning.objectives.sampled_loss import SampledLoss, SampledSettings
from cflightning.objectives.settings import SearchRange, TableSize


def bpr_loss(positive: Tensor, negatives: Tensor) -> Tensor:
    """Return ``mean over m of -log sigmoid(s+ - s-)``, summed over the batch, float32 [].

    The paper (section 4.1) has m = 1. The mean is over all m, accidental hits included.

    Args:
        positive: float32 [batch].
        negatives: float32 [batch, m].
    """
    return softplus(negatives - positive[:, None]).sum() / max(negatives.shape[1], 1)


class SampledBpr(SampledLoss[SampledSettings]):
    """BPR by autograd; user biases and the global bias cancel out."""

    averages_negatives = True

    def score_loss(self, positive: Tensor, negatives: Tensor, log_q: Tensor | None) -> Tensor:
        """See `bpr_loss`."""
        return bpr_loss(positive, negatives)


class Bpr(RankingObjective):
    """The chosen item scores above each negative sample."""

    name = "bpr"
    settings_class = SampledSettings
    sampled_loss = SampledBpr

    def search_space(self, size: TableSize, *, by_autograd: bool) -> dict[str, SearchRange]:
        """Return the ranges of `tune`: penalty, negative samples, dim, learning rate and number of epochs."""
        return self.gradient_search_space(search_ranges(size), by_autograd=by_autograd)
