"""The engine of ranking objectives that have a solver: an epoch of the Trainer is an epoch of the solver."""

from __future__ import annotations

from typing import Any

from cflightning.engines.full_batch import FullBatch, FullBatchEngine
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.objectives.solver import RankingSolver


class SolverEngine(FullBatchEngine):
    """Trains the served network by a solver.

    Args:
        objective: Name of the objective, which is also that of the engine in checkpoints.
        network: The served network.
    """

    def __init__(self, objective: str, network: EmbeddingDot) -> None:
        super().__init__(network)
        self.name = objective

    def start(self, solver: RankingSolver[Any], num_epochs: int | None, world_size: int) -> None:
        """Prepare the first epoch.

        Args:
            solver: Solver of the objective.
            num_epochs: Epochs of the run; None or -1 if their number is open.
            world_size: Number of processes.
        """
        self._solver, self._world_size = solver, world_size
        self._num_epochs = num_epochs if num_epochs and num_epochs > 0 else solver.default_epochs

    def train_batch(self, batch: FullBatch, learning_rate: float) -> float:
        """Train for an epoch; returns this process's share of the loss, as if summed over interactions."""
        self._solver.train_epoch(batch.epoch, self._num_epochs)
        return self._solver.loss() * batch.total / self._world_size

    def close(self) -> None:
        """Shut down the solver's threads."""
        self._solver.close()
