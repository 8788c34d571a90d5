"""Sampled softmax of cosines (Wu et al. 2022)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from cflightning.errors import CheckpointError, ConfigError
from cflightning.objectives.base import RankingObjective
from cflightning.objectives.sampled_loss import SampledLoss, SampledSettings
from cflightning.objectives.settings import SearchRange, TableSize, log_range, setting
from cflightning.objectives.solver import RankingSolver, geometric_rate, restore_tensor
from cflightning.solvers.lightgcn import smooth_items
from cflightning.solvers.svd import DegreeScaledSVD
from cflightning.utils.interactions import make_interactions


def default_temperature(size: TableSize) -> float:
    """Return the default temperature, higher for denser tables: .08 suits Gowalla (.07 %), .2 MovieLens (5 %)."""
    density = size.interactions / max(size.users * size.items, 1)
    return float(0.08 * max(density / 7e-4, 1.0) ** 0.2)


def softmax_loss(
    positive: Tensor,
    negatives: Tensor,
    *,
    temperature: float = 1.0,
    log_q: Tensor | None = None,
    inside: bool = True,
) -> Tensor:
    """Return ``log(e^(s+ / t) + sum over m of e^(s- / t)) - s+ / t``, summed over the batch, float32 [].

    Wu et al. 2022, "SSM". With cosines as scores, the temperature t sets how much the hardest negatives count.

    With `log_q` each negative counts ``1 / (m q)`` times, so that the sum is an unbiased estimate of that over all
    items, whatever their distribution (Bengio & Senécal 2008); without it, frequently drawn items end up too low. Yi et
    al. 2019 correct the score of the chosen item as well; here it stays as it is.

    Args:
        positive: float32 [batch].
        negatives: float32 [batch, m].
        temperature: t, above 0.
        log_q: float32 [batch, m] or [m], log-probability of each sample; None if all are alike.
        inside: Whether the denominator has the chosen item; if not, every interaction needs a negative that takes part.

    Raises:
        ConfigError: The temperature is not above 0.
    """
    if not temperature > 0:
        raise ConfigError(f"softmax: temperature must be above 0, got {temperature}")
    positive, negatives = positive / temperature, negatives / temperature
    if log_q is not None:
        negatives = negatives - log_q - math.log(max(negatives.shape[1], 1))
    terms = torch.cat([positive[:, None], negatives], 1) if inside else negatives
    return (torch.logsumexp(terms, 1) - positive).sum()


@dataclass(frozen=True, kw_only=True)
class SoftmaxSettings(SampledSettings):
    """Settings of the sampled softmax; its sampled loss has the learning rate of the task.

    Attributes:
        negatives: Negative samples that a block of interactions shares; by autograd, those of each batch.
        l2: Penalty on the vectors that a sample looks up.
        temperature: Temperature of the softmax; None for `default_temperature`.
        learning_rate: Learning rate of the first epoch.
        last_rate: Learning rate of the last epoch; it falls geometrically.
        smooth_items: Share of its users' vectors that each served item vector gains after training, one hop of
            LightGCN. (`smooth` also changes user vectors, and vectors are trained through it.)
    """

    negatives: int = setting(solver=256, autograd=1024)
    l2: float | None = setting(autograd=0.0)
    temperature: float | None = None
    learning_rate: float = setting(solver=0.1)
    last_rate: float = setting(solver=0.01)
    smooth_items: float = setting(solver=0.15)

    def resolve(self, size: TableSize) -> Self:
        """Return the settings with the default temperature, if none is given."""
        return replace(self, temperature=default_temperature(size)) if self.temperature is None else self


class SoftmaxSolver(RankingSolver[SoftmaxSettings]):
    """Compiled steps of the sampled softmax, from the normalised vectors of an SVD."""

    refuses_weights = True
    default_epochs = 16

    def prepare(self) -> None:
        """Set up the compiled steps."""
        from cflightning.kernels.sampled_softmax import SampledSoftmax

        user, item = self.interactions[:2]
        sizes = self.network.num_users, self.network.num_items
        known = (user > 0) & (item > 0)
        self.matrix = make_interactions(user, item, *sizes)
        temperature = self.settings.temperature
        assert temperature is not None
        self.steps = SampledSoftmax(
            user[known].numpy(), item[known].numpy(), *sizes, negatives=self.settings.negatives,
            temperature=temperature, seed=self.seed, threads=self.threads,
        )  # fmt: skip
        self.tables = torch.empty(0, 0), torch.empty(0, 0)
        self._loss = 0.0

    def train_epoch(self, epoch: int, num_epochs: int) -> None:
        """Train, then write the smoothed vectors into the network; the first epoch starts from the SVD."""
        if epoch == 0:
            self.tables = self._initial_tables()
        elif not self.tables[0].numel():
            raise CheckpointError("checkpoint: must have the state of the softmax solver, got none; was it edited?")
        rate = geometric_rate(self.settings.learning_rate, self.settings.last_rate, epoch, num_epochs)
        self._loss = self.steps.epoch(epoch, self.tables[0].numpy(), self.tables[1].numpy(), rate)
        users, items = self.tables
        smoothed = smooth_items(users, items, self.matrix, self.settings.smooth_items, threads=self.threads)
        for table, vectors in zip(self.network.tables()[:2], (users, smoothed), strict=True):
            table.copy_(vectors)

    def _initial_tables(self) -> tuple[Tensor, Tensor]:
        from cflightning.kernels.sampled_softmax import unit_vectors

        solver = DegreeScaledSVD(self.matrix, self.dim, seed=self.seed, threads=self.threads)
        solver.sweep()
        solver.sweep()
        users, items = solver.vectors()
        return torch.from_numpy(unit_vectors(users.numpy())), torch.from_numpy(unit_vectors(items.numpy()))

    def loss(self) -> float:
        """Return the mean loss of the epoch's interactions before their steps."""
        return self._loss

    @property
    def state(self) -> dict[str, Tensor]:
        """Tables without smoothing, and the accumulators of the steps."""
        squares = (torch.from_numpy(side) for side in self.steps.squares)
        return dict(zip(("users", "items", "user_squares", "item_squares"), (*self.tables, *squares), strict=True))

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore tables and accumulators."""
        if state:
            sizes = {"users": self.network.num_users, "items": self.network.num_items}
            users, items = (restore_tensor(state, name, (rows, self.dim)) for name, rows in sizes.items())
            self.tables = users, items
            for squares, name in zip(self.steps.squares, ("user_squares", "item_squares"), strict=True):
                squares[:] = restore_tensor(state, name, squares.shape).numpy()


class SampledSoftmaxLoss(SampledLoss[SoftmaxSettings]):
    """Sampled softmax by autograd."""

    cosine = True

    def score_loss(self, positive: Tensor, negatives: Tensor, log_q: Tensor | None) -> Tensor:
        """See `softmax_loss`."""
        temperature = self.settings.temperature
        assert temperature is not None
        return softmax_loss(positive, negatives, temperature=temperature, log_q=log_q)


class Softmax(RankingObjective):
    """Softmax of the chosen item among negative samples, of cosines divided by a temperature."""

    name = "softmax"
    settings_class = SoftmaxSettings
    solver = SoftmaxSolver
    sampled_loss = SampledSoftmaxLoss

    def search_space(self, size: TableSize, *, by_autograd: bool) -> dict[str, SearchRange]:
        """Return the ranges of `tune`: temperature, smoothing, dim, learning rate and number of epochs."""
        settings = {"temperature": log_range(default_temperature(size), 2)}
        if not by_autograd:
            settings |= {"learning_rate": log_range(0.1, 4), "smooth_items": SearchRange(0.0, 0.5)}
        return self.gradient_search_space(settings, by_autograd=by_autograd)
