"""Binary cross-entropy of interactions against negative samples (He et al. 2017, eq. 7; Rendle et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.models.ensemble import average, compress
from cflightning.objectives.base import RankingObjective
from cflightning.objectives.sampled_loss import SampledLoss, SampledSettings, default_l2
from cflightning.objectives.settings import SearchRange, TableSize, log_range, setting
from cflightning.objectives.solver import RankingSolver, geometric_rate, restore_tensor
from cflightning.utils.seeds import member_seed

INITIAL_STD = 0.1
"""Standard deviation of initial factors from which ranking objectives are trained by gradients."""


def bce_loss(positive: Tensor, negatives: Tensor) -> Tensor:
    """Return ``softplus(-s+) + sum over m of softplus(s-)``, summed over the batch, float32 [].

    A negative sample counts as much as the interaction.

    Args:
        positive: float32 [batch], logits.
        negatives: float32 [batch, m], logits.
    """
    return softplus(-positive).sum() + softplus(negatives).sum()


@dataclass(frozen=True, kw_only=True)
class BceSettings(SampledSettings):
    """Settings of cross-entropy; its sampled loss has the learning rate of the task.

    Attributes:
        learning_rate: Learning rate of the first epoch.
        last_rate: Learning rate of the last epoch; it falls geometrically.
    """

    learning_rate: float = setting(solver=0.05)
    last_rate: float = setting(solver=0.003)


class BceSolver(RankingSolver[BceSettings]):
    """Compiled steps of cross-entropy with uniform negative samples; the network is the average of the members."""

    refuses_weights = True
    default_epochs = 32

    def prepare(self) -> None:
        """Make the members and their compiled steps."""
        from cflightning.kernels.sampled_logistic import LogisticTables, SampledLogistic

        user, item = self.interactions.user.numpy(), self.interactions.item.numpy()
        sizes = self.network.num_users, self.network.num_items
        self.networks = [self.network] if self.members == 1 else [
            _init_network(*sizes, self.dim, member_seed(self.seed, member)) for member in range(self.members)
        ]  # fmt: skip
        self.steps = [
            SampledLogistic(
                user, item, *sizes, negatives=self.settings.negatives, seed=self.seed + member, threads=self.threads
            )
            for member in range(self.members)
        ]
        self.tables = [
            LogisticTables(
                *(table.view(-1).numpy() if table.dim() < 2 else table.numpy() for table in network.tables())
            )
            for network in self.networks
        ]
        self._loss = 0.0

    def train_epoch(self, epoch: int, num_epochs: int) -> None:
        """Train all members and average them."""
        rate = geometric_rate(self.settings.learning_rate, self.settings.last_rate, epoch, num_epochs)
        l2 = self.settings.l2
        assert l2 is not None
        total = sum(step.epoch(epoch, tables, rate, l2) for step, tables in zip(self.steps, self.tables, strict=True))
        self._loss = total / max(sum(step.samples for step in self.steps), 1)
        if self.members > 1:
            mean = average([network.tables() for network in self.networks], [1.0] * self.members)
            dim = self.network.dim
            self.network.set_tables(mean if dim >= mean.user_vectors.shape[1] else compress(mean, dim))

    def loss(self) -> float:
        """Return the mean logistic loss of the epoch's samples before their steps."""
        return self._loss

    @property
    def state(self) -> dict[str, Tensor]:
        """Tables of the members."""
        if self.members == 1:
            return {}
        return {
            f"{member}.{name}": table
            for member, network in enumerate(self.networks)
            for name, table in network.tables()._asdict().items()
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore the members."""
        if state and self.members > 1:
            for member, network in enumerate(self.networks):
                for name, table in network.tables()._asdict().items():
                    table.copy_(restore_tensor(state, f"{member}.{name}", table.shape))

    def close(self) -> None:
        """Shut down threads."""
        for step in self.steps:
            step.close()


def _init_network(num_users: int, num_items: int, dim: int, seed: int) -> EmbeddingDot:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return EmbeddingDot(num_users, num_items, dim, std=INITIAL_STD).requires_grad_(False)


def search_ranges(size: TableSize) -> dict[str, SearchRange]:
    """Return the ranges in which `tune` searches the penalty and the number of negative samples."""
    return {"l2": log_range(default_l2(size.interactions), 3), "negatives": SearchRange(4, 16, log=True)}


class SampledBce(SampledLoss[BceSettings]):
    """Cross-entropy by autograd, with all biases."""

    user_biases = True

    def score_loss(self, positive: Tensor, negatives: Tensor, log_q: Tensor | None) -> Tensor:
        """See `bce_loss`."""
        return bce_loss(positive, negatives)


class Bce(RankingObjective):
    """Binary cross-entropy: an interaction is a 1 and each of its negative samples a 0."""

    name = "bce"
    settings_class = BceSettings
    solver = BceSolver
    sampled_loss = SampledBce

    def search_space(self, size: TableSize, *, by_autograd: bool) -> dict[str, SearchRange]:
        """Return the ranges of `tune`: penalty, negative samples, dim, learning rate and number of epochs."""
        return self.gradient_search_space(search_ranges(size), by_autograd=by_autograd)
