"""Implicit alternating least squares."""

from __future__ import annotations

from typing import Any, ClassVar

from cflightning.objectives.base import Ranker


class Alternating(Ranker):
    """Implicit ALS (Hu, Koren & Volinsky 2008; Rendle et al. 2022), from a truncated SVD.

    Settings: `weight` of everything that was not chosen, None for what suits the size of the catalogue; `l2`,
    `exponent` and `block` as of `solvers.ials.Ials`.
    """

    passes = 3
    defaults: ClassVar[dict[str, Any]] = {"weight": None, "l2": 0.015, "exponent": 1.0, "block": 64}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        from cflightning.solvers.ials import Ials

        network, settings = self.network, self.settings
        if settings["weight"] is None:
            settings["weight"] = default_weight(network.num_items)
        self.solver = Ials(
            *self.pairs[:2], network.num_users, network.num_items, confidence=self.pairs.weight,
            threads=self.threads, **settings,
        )  # fmt: skip

    def run(self, number: int, of: int) -> None:
        """See `Ranker`; solves for all users, then for all items."""
        users, items = self.network.fold()[:2]
        if number == 0:
            for table, start in zip((users, items), self.solver.start(self.dim, self.seed), strict=True):
                table.copy_(start)
        self.solver.sweep(users, items)

    def loss(self) -> float:
        """What is minimised, by pair."""
        return self.solver.loss(*self.network.fold()[:2]) / max(len(self.pairs.user), 1)


def default_weight(num_items: int) -> float:
    """Of what was not chosen: with this, all of it together weighs as much on every catalogue."""
    return min(300 / max(num_items, 1), 0.3)
