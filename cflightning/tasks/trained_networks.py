"""The networks that training updates: the served network itself, or members whose average it is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cflightning.engines.svdpp_prior import SvdppPrior, SvdppSides
from cflightning.errors import ConfigError
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.models.ensemble import average, compress
from cflightning.models.network import ScoringNetwork
from cflightning.models.svdpp import SvdppTerm
from cflightning.utils.interactions import Interactions


class TrainedNetworks(nn.Module):
    """The networks that training updates, with their SVD++ priors.

    Where there are members, as in an ensemble, the served network is their average (an average of dot products is a dot
    product), compressed to its own dim.

    Args:
        network: The served network.
        members: Networks that are trained instead of it.

    Attributes:
        priors: SVD++ priors of the trained networks while training lasts; empty without SVD++ terms.
    """

    def __init__(self, network: ScoringNetwork, members: Sequence[EmbeddingDot] = ()) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self._served = (network,)  # in a tuple, since it is a submodule of the task
        self.priors: list[SvdppPrior] = []
        if members:
            network.requires_grad_(False)  # or several devices would wait for gradients that never come

    @property
    def networks(self) -> list[ScoringNetwork]:
        """The networks that are trained."""
        return [*self.members] or [*self._served]

    @property
    def dot_products(self) -> list[EmbeddingDot]:
        """The trained networks if all of them are dot products, else an empty list."""
        networks = [network for network in self.networks if isinstance(network, EmbeddingDot)]
        return networks if len(networks) == len(self.networks) else []

    def average_members(self) -> None:
        """Write the average of the members into the served network."""
        [network] = self._served
        if len(self.members) and isinstance(network, EmbeddingDot):
            tables = [member.tables() for member in self.dot_products]
            network.set_tables(compress(average(tables, [1.0] * len(tables)), network.dim))

    def attach_priors(
        self, user: Tensor, item: Tensor, svdpp: SvdppSides, l2_exponent: float, term_class: type[SvdppTerm]
    ) -> None:
        """Give every trained network an SVD++ prior.

        Args:
            user: int32 [n], user indices of the training part.
            item: int32 [n], item indices of the training part.
            svdpp: Sides with SVD++ terms, `user` or `both`.
            l2_exponent: See `NetworkTask`.
            term_class: Implementation of a term.

        Raises:
            ConfigError: A network has no factors.
        """
        networks = self.dot_products
        if not networks:
            name = type(self.networks[0]).__name__
            raise ConfigError(f"--model.svdpp: must be none for {name}; EmbeddingDot alone has SVD++ terms")
        interactions = Interactions.from_pairs(user, item, networks[0].num_users, networks[0].num_items)
        self.priors = [SvdppPrior(network, interactions, svdpp, l2_exponent, term_class) for network in networks]

    def prior_state(self) -> list[dict[str, Tensor]]:
        """Return the state of the priors for a checkpoint, by member."""
        return [prior.state() for prior in self.priors]

    def load_priors(self, state: list[dict[str, Tensor]]) -> None:
        """Restore the priors from a checkpoint; terms without a state start with zeros."""
        for prior, kept in zip(self.priors, state, strict=False):
            prior.load(kept)

    def step_priors(self) -> None:
        """Update the SVD++ terms from the current tables."""
        names = "user_factors", "item_factors", "user_bias", "item_bias"
        with torch.no_grad():
            for network, prior in zip(self.networks, self.priors, strict=False):
                prior.step({name: getattr(network, name).weight for name in names})
