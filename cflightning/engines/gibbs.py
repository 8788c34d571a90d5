"""Posterior averaging under Lightning's Trainer: an epoch is a sweep of a Markov chain, the network is a mean.

The mean holds two halves. One are the *members*, solutions that the fused engine finds before the first sweep: each is
the best one point of a tight prior. The other are the chain's draws, which spread far wider. They err differently: on
MovieLens their mean is better than either by .002 to .003 RMSE. Before the last sweep the members count for as many
draws as are still to come, so that early sweeps, which the chain needs to find its way, do no harm.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

import torch
from torch import Tensor

from cflightning.engines.base import EPOCHS, SWEEPS, Engine, Plan
from cflightning.engines.full_batch import Memory, Sweep, SweepLoader
from cflightning.engines.fused import FusedEngine, RowAdagrad, StageLoader, compiled_svdpp_term, default_rate
from cflightning.engines.schedule import one_cycle
from cflightning.engines.svdpp_prior import SvdppPrior
from cflightning.errors import TrainingError
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.models.ensemble import average, compress
from cflightning.models.network import FoldedTables
from cflightning.models.svdpp import neighbours
from cflightning.sampling.chain import Chain

log = logging.getLogger(__name__)

SPARE = 2
"""The mean is kept to this many times the dim of chain or network, whichever is more: what is cut off adds up."""


class GibbsEngine(Engine):
    """Runs sweeps; after each the network is the mean so far.

    Args:
        network: that answers.
        memory: of a checkpoint, or empty.
        chain: of the ratings.
        members: trains the members and returns their tables; called where the memory is empty.
        sweeps: expected, for the members' weight.
    """

    def __init__(
        self,
        network: EmbeddingDot,
        memory: Memory,
        chain: Chain,
        members: Callable[[], list[FoldedTables]],
        sweeps: int,
    ) -> None:
        self.network, self.chain, self.members, self.sweeps = network, chain, members, sweeps
        self.rank = SPARE * max(network.dim, chain.width - 1)
        self.kept = kept = memory.state[memory.place]
        if kept:
            chain.load({name[6:]: value for name, value in kept.items() if name.startswith("chain.")})

    def run(self, step: Sweep, learning_rate: float) -> float:
        """Sweep, and return an equal share of the squared errors before; over all processes they add up to the sum."""
        if not self.kept:  # here and not before, so that it counts as training
            self._start()
        error = self.chain.sweep()
        drawn, weight = self.chain.tables(), float(self.kept["weight"])
        if not all(bool(table.isfinite().all()) for table in drawn):
            raise TrainingError("--model.engine gibbs: must draw finite numbers; are there ratings far out of range?")
        self._keep(compress(average([self._mean(), drawn], [weight, 1.0]), self.rank), weight + 1)
        return error / self.chain.processes

    def _start(self) -> None:
        found = self.members()
        mean = average(found, [1.0] * len(found))
        self.chain.start(compress(found[0], self.chain.width - 1))
        self._keep(compress(mean, self.rank), float(self.sweeps))

    def _mean(self) -> FoldedTables:
        return FoldedTables(*(self.kept[f"mean.{name}"] for name in FoldedTables._fields))

    def _keep(self, mean: FoldedTables, weight: float) -> None:
        self.kept |= {f"mean.{name}": table.contiguous() for name, table in mean._asdict().items()}
        self.kept |= {f"chain.{name}": value for name, value in self.chain.state.items()}
        self.kept["weight"] = torch.tensor(weight)
        # Factors are sorted by strength: the first ones are the nearest network.
        dim = self.network.dim
        self.network.take(
            mean._replace(user_vectors=mean.user_vectors[:, :dim], item_vectors=mean.item_vectors[:, :dim])
        )

    def close(self) -> None:
        """End the threads."""
        self.chain.close()


def train_members(
    networks: list[EmbeddingDot], columns: tuple[Tensor, Tensor, Tensor], task: Any, rate: float, seed: int
) -> list[FoldedTables]:
    """The fused engine's solutions from every network's start.

    Args:
        networks: trained in place.
        columns: user and item rows (int32 [n]) and ratings (float32 [n], rating units).
        task: whose penalty, bags and threads.
        rate: peak learning rate.
        seed: of the order of ratings.
    """
    user, item, rating = columns
    loader = StageLoader(user, item, rating.clone(), network=networks[0], seed=seed)
    pairs = neighbours(user, item, networks[0].num_users), neighbours(item, user, networks[0].num_items)
    found = []
    for network in networks:
        optimizer = RowAdagrad([network], rate)
        prior = None
        if task.svdpp != "none":
            prior = SvdppPrior(network, *pairs, task.svdpp, task.penalty.exponent, compiled_svdpp_term())
        l2, exponent = task.penalty
        engine = FusedEngine(
            network, loader, optimizer, l2, exponent, torch.get_num_threads(), prior=prior, bias_l2=task.bias_l2
        )
        number = count()
        for epoch in range(EPOCHS):
            loader.set_epoch(epoch)
            for stage in loader:
                engine.run(stage, rate * one_cycle(next(number), EPOCHS * len(loader)))
        engine.close()
        found.append(network.fold())
    return found


def plan(task: Any, network: EmbeddingDot) -> Plan:
    """The sampling engine for a task."""

    def start(loader: SweepLoader, memory: Memory) -> GibbsEngine:
        from cflightning.kernels.gibbs import bag_pass  # compiled code is imported only where it runs

        threads, sweeps = torch.get_num_threads(), task.trainer.max_epochs
        log.info(
            "sampling on %d thread%s; before the first sweep the fused engine finds %d solution%s to start from",
            threads, "s" * (threads > 1), task.members, "s" * (task.members > 1),
        )  # fmt: skip
        several = loader.world_size > 1
        chain = Chain(
            *loader.columns, num_users=network.num_users, num_items=network.num_items, dim=task.factors,
            scale=network.scale, bags=task.svdpp, seed=task.seed, threads=threads, bag_pass=bag_pass, rank=loader.rank,
            world_size=loader.world_size, add_up=torch.distributed.all_reduce if several else None,
        )  # fmt: skip

        def members() -> list[FoldedTables]:
            return train_members(task.init_members(), loader.columns, task, memory.param_groups[0]["lr"], loader.seed)

        return GibbsEngine(network, memory, chain, members, sweeps if sweeps and sweeps > 0 else SWEEPS)

    def rate(epochs: int | None) -> float:
        return default_rate(EPOCHS, bags=task.svdpp != "none")

    return Plan("gibbs", SweepLoader, partial(Memory, network), rate, start, bag=None, scheduled=False)
