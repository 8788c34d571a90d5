"""The networks that are trained: the one that answers, or several whose mean it is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cflightning.engines.svdpp_prior import SvdppPrior, SvdppSides
from cflightning.errors import ConfigError
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.models.ensemble import average, compress
from cflightning.models.network import RatingNetwork
from cflightning.models.svdpp import SvdppTerm, neighbours


class Ensemble(nn.Module):
    """What training works on.

    Where there are networks apart from the one that answers, that one is their mean (a mean of dot products is a dot
    product), cut down to its own dim.

    Args:
        network: that answers.
        members: networks that are trained instead of it.
    """

    def __init__(self, network: RatingNetwork, members: Sequence[EmbeddingDot] = ()) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self._network = (network,)  # not a part of this module: it is the task's
        self.priors: list[SvdppPrior] = []
        if members:
            network.requires_grad_(False)  # or several devices would wait for gradients that never come

    @property
    def networks(self) -> list[RatingNetwork]:
        """All that are trained."""
        return [*self.members] or [*self._network]

    @property
    def has_factors(self) -> bool:
        """Whether all that are trained have factors, whose part of a score can be told."""
        return all(isinstance(network, EmbeddingDot) for network in self.networks)

    @property
    def first(self) -> tuple[EmbeddingDot, dict[str, Tensor] | None]:
        """The first of them, and the prior means of its tables."""
        [network, *_] = self.networks
        assert isinstance(network, EmbeddingDot)
        return network, self.priors[0].means if self.priors else None

    def sync_served_network(self) -> None:
        """Let the network that answers be what has been learnt so far."""
        [network] = self._network
        if len(self.members) and isinstance(network, EmbeddingDot):
            tables = [member.fold() for member in self.members]  # type: ignore[operator]
            network.take(compress(average(tables, [1.0] * len(tables)), network.dim))

    def attach_priors(
        self, user: Tensor, item: Tensor, svdpp: SvdppSides, l2_exponent: float, kind: type[SvdppTerm]
    ) -> None:
        """Give every network's rows prior means, by bags.

        Args:
            user: int32 [n], rows of the training part.
            item: int32 [n], rows of the training part.
            svdpp: `user` or `both`.
            l2_exponent: see `RatingTask`.
            kind: of bag.
        """
        for network in self.networks:
            if not isinstance(network, EmbeddingDot):
                raise ConfigError(f"--model.svdpp: is known to EmbeddingDot, not to {type(network).__name__}")
        [network, *_] = self.networks
        pairs = neighbours(user, item, network.num_users), neighbours(item, user, network.num_items)
        self.priors = [SvdppPrior(one, *pairs, svdpp, l2_exponent, kind) for one in self.networks]  # type: ignore[arg-type]

    def state(self) -> list[dict[str, Tensor]]:
        """What of the bags a checkpoint has to hold for training to go on."""
        return [prior.state() for prior in self.priors]

    def load(self, state: list[dict[str, Tensor]]) -> None:
        """Go on from a checkpoint; bags that it has not begin with zeros."""
        for prior, kept in zip(self.priors, state, strict=False):
            prior.load(kept)

    def step_priors(self) -> None:
        """Let the bags learn from the tables as they are now."""
        names = "user_factors", "item_factors", "user_bias", "item_bias"
        with torch.no_grad():
            for network, prior in zip(self.networks, self.priors, strict=False):
                prior.step({name: getattr(network, name).weight for name in names})
