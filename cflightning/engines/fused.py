"""The fused engine on the CPU: its dataloader, and the threads that run its compiled step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cflightning.data.loaders.batches import EpochLoader
from cflightning.engines.base import EngineInputs
from cflightning.engines.stage_engine import STAGES, RowwiseAdagrad, StageDescent, StageEngine
from cflightning.engines.svdpp_prior import SvdppPrior
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.models.penalty import BIAS_L2, Penalty
from cflightning.models.svdpp import SvdppTerm

if TYPE_CHECKING:
    from cflightning.models.network import ScoringNetwork

log = logging.getLogger(__name__)


class Stage(NamedTuple):
    """A batch of the fused step: this process's share of `STAGES` cells that have no user and no item in common.

    Attributes:
        cells: int64 [cells of this process], numbers of the cells, largest first.
        order: int32 [blocks of the epoch], order of the blocks of every cell.
        total: Number of ratings over all processes.
    """

    cells: NDArray[np.int64]
    order: NDArray[np.int32]
    total: int


class StageLoader(EpochLoader):
    """Dataloader of the stages of an epoch; it holds the ratings in the layout of the fused step.

    Each process always takes the cells of its own groups of users, and the groups of items in turn: stratified SGD
    (Gemulla et al. 2011).

    Args:
        user: int32 [n], user indices; the loader takes over the columns and sorts them in place.
        item: int32 [n], item indices.
        rating: float32 [n], rating units.
        network: Network whose scale turns ratings into targets.
        seed: Seed of the layout and, with the number of the epoch, of the orders.
        rank: Rank of this process.
        world_size: Number of processes; only the first `STAGES` of them train.
    """

    def __init__(
        self,
        user: Tensor,
        item: Tensor,
        rating: Tensor,
        *,
        network: ScoringNetwork,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        **_: Any,
    ) -> None:
        from cflightning.kernels.rating_layout import block_starts, make_layout

        scale = network.scale
        target = rating.sub_(scale.low).div_(scale.high - scale.low).numpy()  # in place, to save memory
        columns = user.int().numpy(), item.int().numpy(), target
        self.layout = make_layout(*columns, network.num_users, network.num_items, STAGES, seed, copy=False)
        self.blocks = block_starts(self.layout.starts)
        self.seed = seed
        self.world_size = world_size
        self.group_numbers = np.arange(rank, STAGES, world_size)

    @property
    def num_ratings(self) -> int:
        """Number of ratings of an epoch."""
        return len(self.layout.user)

    def __len__(self) -> int:
        return STAGES

    def __iter__(self) -> Iterator[Stage]:
        from cflightning.kernels.rating_layout import shuffled_blocks
        from cflightning.kernels.stratification import stage_cells

        rng = np.random.default_rng([self.seed, self._epoch])
        order = shuffled_blocks(self.blocks, np.uint64(rng.integers(1 << 62)))
        shifts = rng.permutation(STAGES)
        start, self._start = self._start, 0
        for number in range(start, STAGES):
            cells = stage_cells(STAGES, shifts[number])
            total = int((self.layout.starts[cells + 1] - self.layout.starts[cells]).sum())
            own_cells = cells[self.group_numbers]
            sizes = self.layout.starts[own_cells + 1] - self.layout.starts[own_cells]
            self._served = number + 1
            yield Stage(own_cells[np.argsort(-sizes)], order, total)  # a large cell at the end would delay the stage


class FusedDescent(StageDescent):
    """Trains a network by stages of the compiled CPU step.

    Any number of threads and of processes gives the same result, bit for bit.

    Args:
        network: Network to train in place; its tables lie on the CPU.
        loader: Dataloader of the stages.
        optimizer: Optimiser with the accumulators.
        penalty: L2 penalty on factors.
        threads: Number of threads.
        prior: SVD++ terms, if there are any.
        bias_l2: L2 penalties on user biases and on item biases.
        step: Another implementation of `fused_dot.kernel(network.dim)`.
    """

    def __init__(
        self,
        network: EmbeddingDot,
        loader: StageLoader,
        optimizer: RowwiseAdagrad,
        penalty: Penalty,
        *,
        threads: int = 1,
        prior: SvdppPrior | None = None,
        bias_l2: tuple[float, float] = (BIAS_L2, BIAS_L2),
        step: Callable[..., None] | None = None,
    ) -> None:
        from cflightning.kernels import fused_dot

        layout = loader.layout
        counts = layout.user_counts, layout.item_counts
        super().__init__(network, counts, optimizer, penalty, bias_l2=bias_l2, prior=prior)
        self.layout, self.blocks = layout, loader.blocks
        self.single_process = loader.world_size == 1
        self.is_own_user = torch.from_numpy(np.isin(layout.user_group, loader.group_numbers))
        self.step = step or fused_dot.kernel(network.dim)
        self.helpers = min(threads, STAGES) - 1
        self.pool = ThreadPoolExecutor(self.helpers) if self.helpers else None
        if prior is not None:
            for term in prior.terms.values():
                term.use_threads(self.pool, self.helpers)
        self.global_bias = network.global_bias.detach().numpy().reshape(1)

    def train_batch(self, stage: Stage, learning_rate: float) -> float:
        """Train on this process's cells of a stage; returns their sum of squared errors, squared rating units."""
        self.set_penalties()
        layout, cells = self.layout, len(stage.cells)
        taken, biases, errors = np.zeros(1, np.int64), np.zeros(cells, np.float32), np.zeros(cells)
        columns = layout.user, layout.item, layout.target, layout.starts, self.blocks, stage.order
        tables = (table.numpy() for table in (*self.factors, *self.states))
        constants = self.global_bias[0], self.gradient_factor, *self.step_sizes(learning_rate)
        arguments = *columns, stage.cells, taken, biases, errors, *tables, *map(np.float32, constants)
        # Plain threads, not numba's parallel=True: the kernel releases the GIL, torch's OpenMP stays the only one, and
        # a thread that is delayed takes fewer cells.
        jobs = [self.pool.submit(self.step, *arguments) for _ in range(self.helpers)] if self.pool is not None else []
        self.step(*arguments)
        for job in jobs:
            job.result()
        cell_bias = np.zeros(STAGES, np.float32)
        cell_bias[stage.cells // STAGES] = biases
        if not self.single_process:
            is_own_item = torch.from_numpy(np.isin(layout.item_group, stage.cells % STAGES))
            self._exchange(is_own_item, torch.from_numpy(cell_bias))
        self.global_bias[0] = cell_bias.mean()  # each cell has updated a copy by its own ratings
        self.finish_stage(learning_rate)
        return float(errors[np.argsort(stage.cells)].sum()) * self.squared_unit

    def _exchange(self, is_own_item: Tensor, cell_bias: Tensor) -> None:
        """Send every process the updates of the others.

        Every vector and every cell belongs to one process and the others add zeros, so the sums are exact.
        """
        for is_own, factors, state in zip((self.is_own_user, is_own_item), self.factors, self.states, strict=True):
            for table in (factors, state):
                table[~is_own] = 0
                torch.distributed.all_reduce(table)
        torch.distributed.all_reduce(cell_bias)

    def close(self) -> None:
        """Shut down the thread pool."""
        if self.pool is not None:
            self.pool.shutdown()


def compiled_svdpp_term() -> type[SvdppTerm]:
    """Return the compiled implementation of SVD++ terms."""
    from cflightning.kernels.svdpp import CompiledSvdppTerm  # imports numba

    return CompiledSvdppTerm


class FusedEngine(StageEngine):
    """The fused engine on the CPU: trains networks by stages of the compiled step.

    Args:
        networks: Networks to train, at least one.
    """

    def __init__(self, networks: Sequence[EmbeddingDot]) -> None:
        super().__init__(networks)
        self.svdpp_term_class = compiled_svdpp_term()

    def make_loader(self, user: Tensor, item: Tensor, rating: Tensor, **options: Any) -> StageLoader:
        """Make the dataloader of the stages."""
        return StageLoader(user, item, rating, network=self.networks[0], **options)

    def start(self, inputs: EngineInputs, loader: StageLoader, optimizer: RowwiseAdagrad) -> None:
        """Make the gradient descent of each network, whose state may come from a checkpoint."""
        log.info("training by the fused engine on %d thread%s", inputs.threads, "s" if inputs.threads > 1 else "")
        self.descents = [
            FusedDescent(
                network, loader, optimizer, inputs.penalty, threads=inputs.threads, prior=prior, bias_l2=inputs.bias_l2
            )
            for network, prior in zip_longest(self.networks, inputs.priors)
        ]
