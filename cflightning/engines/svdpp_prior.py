"""SVD++ terms in training: prior means of embedding vectors, and the proximal step that pulls vectors towards them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from cflightning.kernels.adagrad import ADAGRAD, BIAS, L2, L2_BIAS, STEP, V_BIAS, V_FACTORS
from cflightning.models.svdpp import SvdppTerm
from cflightning.utils.interactions import Interactions

if TYPE_CHECKING:
    from cflightning.models.embedding_dot import EmbeddingDot

SvdppSides = Literal["none", "user", "both"]
"""Sides that have an SVD++ term: none, users only, or users and items."""
TERM_L2_RATIO = 1.4
"""L2 penalty on the vectors of SVD++ terms, as a multiple of the penalty on embedding vectors."""
BIAS_TERM_L2_RATIO = 3.0
"""L2 penalty on the SVD++ terms of biases, as a multiple of that on the terms of factors."""


class SvdppPrior:
    """Prior means of a network's tables: the SVD++ term (see `models.svdpp`) where a table has one, else zero.

    Args:
        network: Network whose tables are trained.
        interactions: The ratings of the training part by user and by item.
        sides: `user` or `both`.
        l2_exponent: Exponent of `count_weights` for the penalty on embedding vectors.
        term_class: Implementation of a term.
    """

    def __init__(
        self,
        network: EmbeddingDot,
        interactions: Interactions,
        sides: SvdppSides,
        l2_exponent: float,
        term_class: type[SvdppTerm] = SvdppTerm,
    ) -> None:
        self.terms: dict[str, SvdppTerm] = {}
        for side, near, far in (("user", *interactions), ("item", *interactions[::-1])):
            if sides in (side, "both"):
                self.terms[f"{side}_factors"] = term_class(near, far, network.dim, l2_exponent, TERM_L2_RATIO)
                self.terms[f"{side}_bias"] = term_class(near, far, 1, l2_exponent, TERM_L2_RATIO * BIAS_TERM_L2_RATIO)

    @property
    def means(self) -> dict[str, Tensor]:
        """Prior means of the tables that have a term, by table name: float32 [num_users or num_items, width]."""
        return {name: term.mean for name, term in self.terms.items()}

    def step(self, tables: dict[str, Tensor]) -> None:
        """Update the terms by the current tables, and move the tables along with their prior means; in place.

        Args:
            tables: Tables of the network by name.
        """
        with torch.no_grad():
            for name, term in self.terms.items():
                term.step(tables[name])

    def scale_penalty(self, multiple: float) -> None:
        """Set the penalty on the factors' terms to a multiple of its initial value."""
        for name, term in self.terms.items():
            if name.endswith("_factors"):
                term.scale_penalty(multiple)

    def state(self) -> dict[str, Tensor]:
        """Return the state that a checkpoint stores to resume training."""
        return {
            f"{name}.{part}": getattr(term, part) for name, term in self.terms.items() for part in ("vectors", "mean")
        }

    def load(self, state: dict[str, Tensor]) -> None:
        """Restore the state of a checkpoint; terms that it lacks stay at zero."""
        for name, term in self.terms.items():
            for part in ("vectors", "mean"):
                if (value := state.get(f"{name}.{part}")) is not None:
                    getattr(term, part).copy_(value)


class ProximalStep:
    """The L2 penalty of the fused engines with SVD++ terms, as a separate step after each stage.

    Forward-backward splitting (Duchi & Singer 2009): the kernel descends the squared error alone, and this step pulls
    every vector towards its prior mean by as much as the kernel would have pulled it towards zero over the stage. The
    kernels need no prior means, and the result is slightly more accurate.

    Args:
        network: Network whose factors are trained.
        prior: SVD++ terms.
        states: State tables of users and items, see `kernels.adagrad`; the biases are updated, and the penalty columns
            are set to zero.
        counts: int64 [num_users] and [num_items], numbers of ratings.
        stages: Stages per epoch.
    """

    def __init__(
        self, network: EmbeddingDot, prior: SvdppPrior, states: list[Tensor], counts: list[Tensor], stages: int
    ) -> None:
        self.prior, self.states = prior, dict(zip(("user", "item"), states, strict=True))
        self.penalties = {}
        for name, state, count in zip(("user", "item"), states, counts, strict=True):
            for table, column in ((f"{name}_factors", L2), (f"{name}_bias", L2_BIAS)):
                self.penalties[table] = state[:, column] * state[:, STEP] * count / stages
                state[:, column] = 0
        factors = network.user_factors.weight.detach(), network.item_factors.weight.detach()
        self.tables = {"user_factors": factors[0], "item_factors": factors[1]}
        self.tables.update({f"{name}_bias": state[:, BIAS, None] for name, state in self.states.items()})

    def step(self, learning_rate: float, penalty_scale: float = 1.0) -> None:
        """Pull all vectors and biases towards their prior means, and update the terms.

        Args:
            learning_rate: Learning rate of the stage.
            penalty_scale: Multiple of the penalty on factors.
        """
        for name, state in self.states.items():
            for table, column, rate in (
                (f"{name}_factors", V_FACTORS, learning_rate * penalty_scale),
                (f"{name}_bias", V_BIAS, learning_rate * ADAGRAD.bias_rate),
            ):
                share = -torch.expm1(-rate * self.penalties[table] / (state[:, column].sqrt() + ADAGRAD.eps))
                if (term := self.prior.terms.get(table)) is not None:
                    term.step(self.tables[table], share)
                else:
                    self.tables[table].mul_(1 - share[:, None])
