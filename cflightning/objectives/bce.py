"""Cross-entropy of choices and sampled negatives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from cflightning.errors import ConfigError
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.models.ensemble import average, compress
from cflightning.objectives.base import Ranker, falling

STD = 0.1
"""Standard deviation of initial factors that gradient steps start from."""


class Logistic(Ranker):
    """Cross-entropy of choices and uniform negatives (Rendle et al. 2020), by the compiled step of the CPU.

    Settings: `negatives` for each choice; `learning_rate` of the first pass and `last_rate` of the last, geometric
    between; `l2` of a sample's rows, None for what suits the number of choices.
    """

    passes = 32
    defaults: ClassVar[dict[str, Any]] = {"negatives": 8, "learning_rate": 0.05, "last_rate": 0.003, "l2": None}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        from cflightning.kernels.choices import ChoiceTables, SampledLogistic

        user, item, negatives = self.pairs.user.numpy(), self.pairs.item.numpy(), int(self.settings["negatives"])
        if self.pairs.weight is not None:
            raise ConfigError("--data.weight: is known to --model.objective ials alone, got bce")
        sizes = self.network.num_users, self.network.num_items
        self.ensemble = [self.network] if self.members == 1 else [
            _start(*sizes, self.dim, self.seed + member * 1_000_003) for member in range(self.members)
        ]  # fmt: skip
        self.solvers = [
            SampledLogistic(user, item, *sizes, negatives=negatives, seed=self.seed + member, threads=self.threads)
            for member in range(self.members)
        ]
        self.tables = [
            ChoiceTables(*(table.view(-1).numpy() if table.dim() < 2 else table.numpy() for table in learner.fold()))
            for learner in self.ensemble
        ]
        if self.settings["l2"] is None:
            self.settings["l2"] = default_l2(len(user))
        self._loss = 0.0

    def run(self, number: int, of: int) -> None:
        """See `Ranker`; the learning rate falls from pass to pass."""
        rate = falling(self.settings, number, of)
        pairs = [*zip(self.solvers, self.tables, strict=True)]
        total = sum(solver.epoch(number, tables, rate, float(self.settings["l2"])) for solver, tables in pairs)
        self._loss = total / max(sum(solver.samples for solver in self.solvers), 1)
        if self.members > 1:
            mean = average([learner.fold() for learner in self.ensemble], [1.0] * self.members)
            width = self.network.dim
            self.network.take(mean if width >= mean.user_vectors.shape[1] else compress(mean, width))

    def loss(self) -> float:
        """Mean logistic loss, before the steps."""
        return self._loss

    @property
    def state(self) -> dict[str, Tensor]:
        """Tables of the members."""
        if self.members == 1:
            return {}
        return {
            f"{member}.{name}": table
            for member, learner in enumerate(self.ensemble)
            for name, table in learner.fold()._asdict().items()
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        if state and self.members > 1:
            for member, learner in enumerate(self.ensemble):
                for name, table in learner.fold()._asdict().items():
                    table.copy_(state[f"{member}.{name}"])

    def close(self) -> None:
        """End threads."""
        for solver in self.solvers:
            solver.close()


def default_l2(choices: int) -> float:
    """The penalty of cross-entropy: fewer choices say less of each row. From data sets of 75,000 and 994,000."""
    return float(0.005 * min(max(choices / 1e6, 0.02), 1.0) ** -0.45)


def _start(num_users: int, num_items: int, dim: int, seed: int) -> EmbeddingDot:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return EmbeddingDot(num_users, num_items, dim, std=STD).requires_grad_(False)
