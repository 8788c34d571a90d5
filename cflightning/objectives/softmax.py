"""Sampled softmax of cosines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from cflightning.errors import ConfigError
from cflightning.objectives.base import Ranker, falling, kept_table
from cflightning.solvers.smoothing import smooth


class Softmax(Ranker):
    """Sampled softmax of cosines (Wu et al. 2022) by the compiled step of the CPU, from the vectors of an SVD.

    Settings: `negatives` shared by a block of choices; `temperature`, None for what suits the density; `learning_rate`
    of the first pass and `last_rate` of the last, geometric between; `smooth`, what the answering item vectors take of
    those of their users, a hop of LightGCN (He et al. 2020) after training.
    """

    passes = 16
    defaults: ClassVar[dict[str, Any]] = {
        "negatives": 256, "temperature": None, "learning_rate": 0.1, "last_rate": 0.01, "smooth": 0.15,
    }  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        from cflightning.kernels.softmax import SampledSoftmax
        from cflightning.solvers.interactions import interactions

        if self.pairs.weight is not None:
            raise ConfigError("--data.weight: is known to --model.objective ials alone, got softmax")
        user, item = self.pairs[:2]
        sizes = self.network.num_users, self.network.num_items
        known = (user > 0) & (item > 0)
        self.sides = interactions(user, item, *sizes)
        self.settings["temperature"] = self.settings["temperature"] or default_temperature(len(user), *sizes)
        self.solver = SampledSoftmax(
            user[known].numpy(), item[known].numpy(), *sizes, negatives=int(self.settings["negatives"]),
            temperature=float(self.settings["temperature"]), seed=self.seed, threads=self.threads,
        )  # fmt: skip
        self.tables = torch.empty(0, 0), torch.empty(0, 0)
        self._loss = 0.0

    def run(self, number: int, of: int) -> None:
        """See `Ranker`; the learning rate falls from pass to pass."""
        if number == 0:
            self.tables = self._start()
        rate = falling(self.settings, number, of)
        self._loss = self.solver.epoch(number, self.tables[0].numpy(), self.tables[1].numpy(), rate)
        shares = 0.0, float(self.settings["smooth"])
        smoothed = smooth(*self.tables, self.sides, shares=shares, unit=False, threads=self.threads)
        for table, found in zip(self.network.fold()[:2], smoothed, strict=True):
            table.copy_(found)

    def _start(self) -> tuple[Tensor, Tensor]:
        from cflightning.kernels.softmax import unit_rows
        from cflightning.solvers.svd import DegreeScaledSVD

        solver = DegreeScaledSVD(self.sides, self.dim, seed=self.seed, threads=self.threads)
        solver.sweep()
        solver.sweep()
        users, items = solver.finish()
        return torch.from_numpy(unit_rows(users.numpy())), torch.from_numpy(unit_rows(items.numpy()))

    def loss(self) -> float:
        """Mean loss of a choice, before the steps."""
        return self._loss

    @property
    def state(self) -> dict[str, Tensor]:
        """Tables without smoothing, and the steps' accumulators."""
        squares = (torch.from_numpy(side) for side in self.solver.squares)
        return dict(zip(("users", "items", "user_squares", "item_squares"), (*self.tables, *squares), strict=True))

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        if state:
            sizes = {"users": self.network.num_users, "items": self.network.num_items}
            users, items = (kept_table(state, name, rows, self.dim) for name, rows in sizes.items())
            self.tables = users, items
            for own, name in zip(self.solver.squares, ("user_squares", "item_squares"), strict=True):
                own[:] = state[name].numpy()


def default_temperature(choices: int, users: int, items: int) -> float:
    """The softer, the denser the table: .08 suits Gowalla (.07 %), .2 MovieLens (5 %)."""
    return float(0.08 * max(choices / max(users * items, 1) / 7e-4, 1.0) ** 0.2)
