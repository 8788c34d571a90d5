"""The interface of ranking objectives that are optimised without autograd, an epoch over all interactions at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Generic, NamedTuple

import torch
from torch import Tensor

from cflightning.errors import CheckpointError, ConfigError
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.objectives.settings import SettingsT


class InteractionColumns(NamedTuple):
    """The interactions of a training part as columns.

    Attributes:
        user: int32 [n], user indices.
        item: int32 [n], item indices.
        weight: float32 [n], weight of each interaction; None if all have weight 1.
        rating: float32 [n], position of its rating in the rating range, from 0 to 1; None without ratings.
    """

    user: Tensor
    item: Tensor
    weight: Tensor | None = None
    rating: Tensor | None = None


class RankingSolver(ABC, Generic[SettingsT]):
    """Optimises a ranking objective by compiled passes or closed-form solves on the CPU, in place.

    Args:
        interactions: Interactions of the training part.
        network: Network whose tables are computed.
        settings: Complete settings of the objective.
        dim: Latent factors in training; the network has more where it holds the average of several members.
        members: Number of ensemble members.
        seed: Seed of all random draws.
        threads: Number of threads; the result does not depend on it.

    Raises:
        ConfigError: The value of a setting is out of range.
    """

    refuses_weights: ClassVar[bool] = False
    """True if the interactions must have no weights."""
    default_epochs: ClassVar[int]
    """Number of epochs of a training run by default."""

    def __init__(
        self,
        interactions: InteractionColumns,
        network: EmbeddingDot,
        settings: SettingsT,
        *,
        dim: int,
        members: int = 1,
        seed: int = 0,
        threads: int = 1,
    ) -> None:
        self.interactions, self.network, self.dim, self.members = interactions, network, dim, members
        self.settings, self.seed, self.threads = settings, seed, threads
        self.prepare()

    @abstractmethod
    def prepare(self) -> None:
        """Set up what the epochs need."""

    @abstractmethod
    def train_epoch(self, epoch: int, num_epochs: int) -> None:
        """Train for an epoch and write the result into the network.

        Args:
            epoch: Number of the epoch, from 0.
            num_epochs: Epochs of the whole run.
        """

    @abstractmethod
    def loss(self) -> float:
        """Return the mean loss of the last epoch per interaction or sample, for logs and divergence checks."""

    @property
    def state(self) -> dict[str, Tensor]:
        """State beside the network's tables that a checkpoint stores to resume training."""
        return {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore the state of a checkpoint."""
        return

    def close(self) -> None:
        """Shut down threads."""
        return


def restore_table(state: Mapping[str, Tensor], name: str, rows: int, dim: int | None = None) -> Tensor:
    """Return a copy of a checkpoint's table of `rows` rows, float32 [rows, dim]; see `restore_tensor`."""
    return restore_tensor(state, name, (rows, dim))


def restore_tensor(state: Mapping[str, Tensor], name: str, shape: Sequence[int | None]) -> Tensor:
    """Return a copy of a checkpoint's tensor after a check of its type and shape, on which compiled code relies.

    Args:
        state: State of the checkpoint.
        name: Name of the tensor.
        shape: Lengths of its axes; None for any length.

    Returns:
        float32 of this shape.

    Raises:
        CheckpointError: The tensor is missing or has another type or shape.
    """
    tensor = state.get(name)
    if (
        not isinstance(tensor, Tensor)
        or tensor.dtype != torch.float32
        or tensor.ndim != len(shape)
        or any(wanted not in (None, length) for wanted, length in zip(shape, tensor.shape, strict=True))
    ):
        axes = ", ".join("width" if length is None else str(length) for length in shape)
        raise CheckpointError(f"checkpoint: {name} must be float32 [{axes}]; was it edited?")
    return tensor.contiguous().clone()


def geometric_rate(first: float, last: float, epoch: int, num_epochs: int) -> float:
    """Return the learning rate of an epoch on the geometric way from `first` to `last`.

    Raises:
        ConfigError: The last rate is not above 0 or is above the first one.
    """
    if not 0 < last <= first:
        raise ConfigError(f"--model.ranking.last_rate: must be above 0 and at most {first:g}, got {last:g}")
    return float(first * (last / first) ** (epoch / max(num_epochs - 1, 1)))
