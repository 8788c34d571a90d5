"""`Ranker`: what makes vectors that rank, a pass at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from cflightning.errors import CheckpointError, ConfigError
from cflightning.kernels.compiling import usable
from cflightning.models.embedding_dot import EmbeddingDot


class Pairs(NamedTuple):
    """Who chose what.

    Attributes:
        user: int32 [n], rows.
        item: int32 [n], rows.
        weight: float32 [n], what each counts; None where all count the same.
    """

    user: Tensor
    item: Tensor
    weight: Tensor | None = None


class Ranker(ABC):
    """Makes the tables of a network that ranks.

    Args:
        pairs: of the training part.
        network: whose tables are made, in place.
        settings: name -> value; see `defaults` of the subclass.
        dim: latent factors that are learnt; the network has more where it answers for several members.
        members: how many are learnt side by side.
        seed: of whatever is drawn.
        threads: any number gives the same.

    Attributes:
        settings: complete; those that were not given are what suits the table.

    Raises:
        ConfigError: a setting has no such name here, or no such value.
    """

    known: ClassVar[dict[str, type[Ranker]]] = {}
    """By the name of what is minimised."""
    passes: ClassVar[int]
    """Of a training, where no number is given."""
    defaults: ClassVar[dict[str, Any]]

    def __init__(
        self,
        pairs: Pairs,
        network: EmbeddingDot,
        settings: Mapping[str, Any],
        *,
        dim: int,
        members: int = 1,
        seed: int = 0,
        threads: int = 1,
    ) -> None:
        unknown = sorted(set(settings) - set(self.defaults))
        if unknown:
            raise ConfigError(
                f"--model.ranking: has {', '.join(self.defaults)} with {type(self).__name__.lower()}, "
                f"got {', '.join(unknown)}"
            )
        self.pairs, self.network, self.dim, self.members = pairs, network, dim, members
        self.seed, self.threads = seed, threads
        self.settings = {**self.defaults, **{name: value for name, value in settings.items() if value is not None}}

    @abstractmethod
    def run(self, number: int, of: int) -> None:
        """Take a pass; the network answers by it afterwards.

        Args:
            number: of the pass, from 0.
            of: how many there will be.
        """

    @abstractmethod
    def loss(self) -> float:
        """What the last pass came to, a mean over pairs or samples; for people, and to see whether it is finite."""

    @property
    def state(self) -> dict[str, Tensor]:
        """What a checkpoint has to hold beside the network for training to go on."""
        return {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        return

    def close(self) -> None:
        """End threads."""
        return


def kept_table(state: Mapping[str, Tensor], name: str, rows: int, dim: int | None = None) -> Tensor:
    """Return a table of a checkpoint, of the size that compiled passes take for granted.

    Args:
        state: Of the checkpoint.
        name: The table's.
        rows: How many it must have.
        dim: Its width; None for any.

    Returns:
        float32 [rows, dim], a copy.

    Raises:
        CheckpointError: It is missing or another.
    """
    table = state.get(name)
    fits = isinstance(table, Tensor) and table.dtype == torch.float32 and table.ndim == 2 and len(table) == rows
    if not fits or table is None or (dim is not None and table.shape[1] != dim):
        raise CheckpointError(f"checkpoint: {name} must be float32 [{rows}, {dim or 'width'}]; was it edited?")
    return table.contiguous().clone()


def falling(settings: Mapping[str, Any], number: int, of: int) -> float:
    """The learning rate of a pass, from `learning_rate` to `last_rate`, geometric.

    Raises:
        ConfigError: the last one is not the lower one, or not above 0.
    """
    first, last = float(settings["learning_rate"]), float(settings["last_rate"])
    if not 0 < last <= first:
        raise ConfigError(f"--model.ranking.last_rate: must be above 0 and at most {first:g}, got {last:g}")
    return float(first * (last / first) ** (number / max(of - 1, 1)))


def compiled() -> bool:
    """Whether compiled steps can be used."""
    return usable()
