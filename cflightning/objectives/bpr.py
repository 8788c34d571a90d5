"""BPR: Bayesian personalised ranking (Rendle et al. 2009)."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor
from torch.nn.functional import softplus

from cflightning.objectives.base import RankingObjective
from cflightning.objectives.bce import default_l2
from cflightning.objectives.sampled_loss import SampledLoss, SampledSettings
from cflightning.objectives.settings import Numbers, TableSize, log_range


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

    objective = "bpr"
    settings_class = SampledSettings
    averages_negatives = True

    def resolve(self, settings: SampledSettings, size: TableSize) -> SampledSettings:
        """Return the settings with the default penalty of cross-entropy, if there is none."""
        return replace(settings, l2=default_l2(size.interactions)) if settings.l2 is None else settings

    def score_loss(self, positive: Tensor, negatives: Tensor, log_q: Tensor | None) -> Tensor:
        """See `bpr_loss`."""
        return bpr_loss(positive, negatives)


class Bpr(RankingObjective):
    """The chosen item scores above each negative sample."""

    name = "bpr"
    sampled_loss = SampledBpr

    def search_space(self, size: TableSize, *, by_autograd: bool) -> dict[str, Numbers]:
        """Return the ranges of `tune`: penalty, negative samples, dim, learning rate and number of epochs."""
        settings = {"l2": log_range(default_l2(size.interactions), 3), "negatives": Numbers(4, 16, log=True)}
        return self.gradient_search_space(settings, by_autograd=by_autograd)
