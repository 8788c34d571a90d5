"""The bags of a dot-product network while it is trained: see `objectives.bags`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from cflightning.kernels.rule import BIAS, L2, L2_BIAS, STEP, V_BIAS, V_FACTORS, Rule
from cflightning.models.svdpp import Neighbours, SvdppTerm

if TYPE_CHECKING:
    from cflightning.models.embedding_dot import EmbeddingDot

SvdppSides = Literal["none", "user", "both"]
PENALTY = 1.4
"""On the vectors in bags, as a multiple of the penalty on rows."""
BIAS_PENALTY = 3.0
"""On the numbers in the biases' bags, as a multiple of that."""


class SvdppPrior:
    """Prior means of the rows of a network's tables, where they have bags; else zero.

    Args:
        network: whose tables are trained.
        items: of every user: the items rated in the training part.
        users: of every item: the same pairs the other way round.
        svdpp: `user` or `both`.
        l2_exponent: see `RatingTask`.
        kind: of bag.
    """

    def __init__(
        self,
        network: EmbeddingDot,
        items: Neighbours,
        users: Neighbours,
        svdpp: SvdppSides,
        l2_exponent: float,
        kind: type[SvdppTerm] = SvdppTerm,
    ) -> None:
        self.terms: dict[str, SvdppTerm] = {}
        for side, own, other in (("user", items, users), ("item", users, items)):
            if svdpp in (side, "both"):
                self.terms[f"{side}_factors"] = kind(own, other, network.dim, l2_exponent, PENALTY)
                self.terms[f"{side}_bias"] = kind(own, other, 1, l2_exponent, PENALTY * BIAS_PENALTY)

    @property
    def means(self) -> dict[str, Tensor]:
        """Prior means of the tables that have bags, by their names in the network: float32 [rows, width]."""
        return {name: bag.mean for name, bag in self.terms.items()}

    def step(self, tables: dict[str, Tensor]) -> None:
        """Learn from the tables as they are now and move their rows along with their means; all in place.

        Args:
            tables: by their names in the network.
        """
        with torch.no_grad():
            for name, bag in self.terms.items():
                bag.step(tables[name])

    def penalise(self, multiple: float) -> None:
        """Let the vectors in the factors' bags cost a multiple of what they cost at first."""
        for name, bag in self.terms.items():
            if name.endswith("_factors"):
                bag.penalise(multiple)

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint has to hold for training to go on."""
        kept = {
            f"{name}.{part}": getattr(bag, part) for name, bag in self.terms.items() for part in ("vectors", "mean")
        }
        return kept

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from a checkpoint; bags that it has not begin with zeros."""
        for name, bag in self.terms.items():
            for part in ("vectors", "mean"):
                if (value := state.get(f"{name}.{part}")) is not None:
                    getattr(bag, part).copy_(value)


class Pull:
    """The penalty of the fused steps where there are bags, as a step of its own after each stage.

    Forward-backward splitting (Duchi & Singer 2009): the kernel goes down the squared error alone, this pulls every row
    to its prior mean by as much as the kernel would have pulled it to zero over the stage. No kernel has to read means,
    and it is a little more accurate.

    Args:
        network: whose factors are trained.
        prior: the bags.
        sides: both side tables; their biases are trained, their columns of penalties are set to zero.
        counts: int64 [rows] twice, ratings of every row.
        rule: constants of the step.
        stages: of an epoch.
    """

    def __init__(
        self,
        network: EmbeddingDot,
        prior: SvdppPrior,
        sides: list[Tensor],
        counts: list[Tensor],
        rule: Rule,
        stages: int,
    ) -> None:
        self.prior, self.rule, self.sides = prior, rule, dict(zip(("user", "item"), sides, strict=True))
        self.loads = {}
        for name, side, count in zip(("user", "item"), sides, counts, strict=True):
            for table, column in ((f"{name}_factors", L2), (f"{name}_bias", L2_BIAS)):
                self.loads[table] = side[:, column] * side[:, STEP] * count / stages
                side[:, column] = 0
        factors = network.user_factors.weight.detach(), network.item_factors.weight.detach()
        self.tables = {"user_factors": factors[0], "item_factors": factors[1]}
        self.tables.update({f"{name}_bias": side[:, BIAS, None] for name, side in self.sides.items()})

    def after_stage(self, learning_rate: float, strength: float = 1.0) -> None:
        """Pull all rows, and let the bags learn.

        Args:
            learning_rate: of the stage.
            strength: multiple of the penalty on factors.
        """
        rule = self.rule
        for name, side in self.sides.items():
            for table, column, rate in (
                (f"{name}_factors", V_FACTORS, learning_rate * strength),
                (f"{name}_bias", V_BIAS, learning_rate * rule.bias_rate),
            ):
                share = -torch.expm1(-rate * self.loads[table] / (side[:, column].sqrt() + rule.eps))
                if (bag := self.prior.terms.get(table)) is not None:
                    bag.step(self.tables[table], share)
                else:
                    self.tables[table].mul_(1 - share[:, None])
