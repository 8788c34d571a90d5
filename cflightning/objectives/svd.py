"""A truncated SVD."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from cflightning.objectives.base import Ranker, kept_table


class Spectral(Ranker):
    """A degree-scaled truncated SVD, without a gradient; see `solvers.svd`.

    Settings: `user_power`, `item_power` and `score_power`.
    """

    passes = 2
    defaults: ClassVar[dict[str, Any]] = {"user_power": 0.3, "item_power": 0.5, "score_power": 0.4}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        from cflightning.solvers.interactions import interactions
        from cflightning.solvers.svd import DegreeScaledSVD

        sides = interactions(*self.pairs[:2], self.network.num_users, self.network.num_items)
        self.solver = DegreeScaledSVD(sides, self.dim, seed=self.seed, threads=self.threads, **self.settings)
        self._held = 0.0

    def run(self, number: int, of: int) -> None:
        """See `Ranker`; a sweep of the iteration."""
        self._held = self.solver.sweep()
        for table, found in zip(self.network.fold()[:2], self.solver.finish(), strict=True):
            table.copy_(found)

    def loss(self) -> float:
        """The share of the scaled matrix that the vectors do not hold."""
        return 1 - self._held

    @property
    def state(self) -> dict[str, Tensor]:
        """The subspace, which is wider than the vectors."""
        basis = self.solver.basis
        return {} if basis is None else {"basis": basis, "values": self.solver.values}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        if state:
            self.solver.basis = kept_table(state, "basis", self.network.num_items)
            self.solver.values = state["values"].clone()
