"""The Gibbs engine: an epoch is a sweep of a Markov chain, and the served network is an average of posterior draws.

The average has two halves. One half are the ensemble members, which the fused engine trains before the first sweep;
each is a point estimate under a narrow prior. The other half are the draws of the chain, which vary far more. Their
errors are weakly correlated: on MovieLens the average is .002 to .003 RMSE better than either half. Before the last
sweep the members weigh as much as the draws that are still to come, so that the early draws, before the chain has
converged, do no harm.
"""

from __future__ import annotations

import logging
from itertools import count

import torch

from cflightning.engines.base import DEFAULT_EPOCHS, DEFAULT_SWEEPS, EngineInputs
from cflightning.engines.full_batch import FullBatch, FullBatchEngine, FullBatchLoader, FullBatchOptimizer
from cflightning.engines.fused import FusedDescent, StageLoader, compiled_svdpp_term
from cflightning.engines.schedule import one_cycle
from cflightning.engines.stage_engine import RowwiseAdagrad, fused_learning_rate
from cflightning.engines.svdpp_prior import SvdppPrior, SvdppSides
from cflightning.errors import TrainingError
from cflightning.models.ensemble import average, compress
from cflightning.models.network import DotProductTables
from cflightning.sampling.chain import Chain
from cflightning.utils.interactions import Interactions

log = logging.getLogger(__name__)

RANK_FACTOR = 2
"""Rank of the stored average, as a multiple of the larger dim of chain and network: truncation errors accumulate."""


class GibbsEngine(FullBatchEngine):
    """Runs sweeps of a Markov chain, and sets the served network to the average after each.

    Args:
        network: The served network.
    """

    name = "gibbs"

    def default_learning_rate(self, num_epochs: int | None, svdpp: SvdppSides) -> float:
        """Return the learning rate of the members, whatever the number of sweeps."""
        return fused_learning_rate(DEFAULT_EPOCHS, svdpp)

    def start(self, inputs: EngineInputs, loader: FullBatchLoader, optimizer: FullBatchOptimizer) -> None:
        """Make the chain, or restore it; the members are trained by the first batch.

        Args:
            inputs: Settings of the fit.
            loader: The engine's dataloader.
            optimizer: The engine's optimiser; its state may come from a checkpoint.
        """
        from cflightning.kernels.gibbs import draw_svdpp_vectors  # imports numba

        log.info("Gibbs sampling on %d thread%s", inputs.threads, "s" * (inputs.threads > 1))
        network = self.network
        self.chain = Chain(
            *loader.columns, num_users=network.num_users, num_items=network.num_items, dim=inputs.dim,
            scale=network.scale, svdpp=inputs.svdpp, seed=inputs.seed, threads=inputs.threads,
            draw_vectors=draw_svdpp_vectors, rank=loader.rank, world_size=loader.world_size,
            all_reduce=torch.distributed.all_reduce if loader.world_size > 1 else None,
        )  # fmt: skip
        self.inputs, self.loader, self.learning_rate = inputs, loader, optimizer.param_groups[0]["lr"]
        self.rank = RANK_FACTOR * max(network.dim, self.chain.width - 1)
        self.state = state = optimizer.state[optimizer.state_owner]
        if state:
            self.chain.load({name[6:]: value for name, value in state.items() if name.startswith("chain.")})

    def train_batch(self, batch: FullBatch, learning_rate: float) -> float:
        """Run a sweep; returns an equal share of the squared errors before it, which add up over all processes."""
        if not self.state:  # not in `start`, so that it counts as training time
            self._start_chain()
        error = self.chain.sweep()
        draw, weight = self.chain.tables(), float(self.state["weight"])
        if not all(bool(table.isfinite().all()) for table in draw):
            raise TrainingError("--model.engine gibbs: must draw finite numbers; are there ratings far out of range?")
        mean = DotProductTables(*(self.state[f"mean.{name}"] for name in DotProductTables._fields))
        self._store(compress(average([mean, draw], [weight, 1.0]), self.rank), weight + 1)
        return error / self.chain.processes

    def _start_chain(self) -> None:
        members = train_members(self.inputs, self.loader, self.learning_rate)
        self.chain.start(compress(members[0], self.chain.width - 1))
        sweeps = self.inputs.num_epochs
        weight = float(sweeps if sweeps and sweeps > 0 else DEFAULT_SWEEPS)
        self._store(compress(average(members, [1.0] * len(members)), self.rank), weight)

    def _store(self, mean: DotProductTables, weight: float) -> None:
        self.state |= {f"mean.{name}": table.contiguous() for name, table in mean._asdict().items()}
        self.state |= {f"chain.{name}": value for name, value in self.chain.state.items()}
        self.state["weight"] = torch.tensor(weight)
        # Factors are sorted by singular value, so the first ones are the best approximation of the network's dim.
        dim = self.network.dim
        self.network.set_tables(
            mean._replace(user_vectors=mean.user_vectors[:, :dim], item_vectors=mean.item_vectors[:, :dim])
        )

    def close(self) -> None:
        """Shut down the thread pool, and release the ratings."""
        self.chain.close()
        del self.chain, self.loader


def train_members(inputs: EngineInputs, loader: FullBatchLoader, learning_rate: float) -> list[DotProductTables]:
    """Train the ensemble members by the fused engine.

    Args:
        inputs: Settings of the fit.
        loader: Loader with the training part; its seed decides the order of the ratings.
        learning_rate: Peak learning rate.

    Returns:
        The tables of each member.
    """
    networks = inputs.build_members()
    log.info("the fused engine trains %d ensemble member%s first", len(networks), "s" * (len(networks) > 1))
    user, item, rating = loader.columns
    stages = StageLoader(user, item, rating.clone(), network=networks[0], seed=loader.seed)
    interactions = Interactions.from_pairs(user, item, networks[0].num_users, networks[0].num_items)
    members = []
    for network in networks:
        prior = None
        if inputs.svdpp != "none":
            prior = SvdppPrior(network, interactions, inputs.svdpp, inputs.penalty.exponent, compiled_svdpp_term())
        optimizer = RowwiseAdagrad([network], learning_rate)
        descent = FusedDescent(
            network, stages, optimizer, inputs.penalty, threads=inputs.threads, prior=prior, bias_l2=inputs.bias_l2
        )
        step = count()
        for epoch in range(DEFAULT_EPOCHS):
            stages.set_epoch(epoch)
            for stage in stages:
                descent.train_batch(stage, learning_rate * one_cycle(next(step), DEFAULT_EPOCHS * len(stages)))
        descent.close()
        members.append(network.tables())
    return members
