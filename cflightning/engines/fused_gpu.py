"""The fused engine on a CUDA GPU: its dataloader, and the host's part of a stage.

The Trainer's batch is a stage, an eighth of an epoch, so the overhead of a training step is paid once in millions of
ratings. Nothing in a stage waits for the device: the order of a stage is made there, and its loss stays there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cflightning.data.loaders.batches import EpochLoader
from cflightning.engines.base import EngineInputs
from cflightning.engines.stage_engine import STAGES, RowwiseAdagrad, StageDescent, StageEngine
from cflightning.engines.svdpp_prior import SvdppPrior
from cflightning.kernels.adagrad import GPU_BLOCK
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.models.penalty import BIAS_L2, Penalty
from cflightning.models.svdpp import SvdppTerm
from cflightning.utils.seeds import SEED_FACTOR

if TYPE_CHECKING:
    from cflightning.models.network import ScoringNetwork


class GpuStage(NamedTuple):
    """A batch of the fused GPU step.

    Attributes:
        order: int32 [blocks], on the device, numbers of blocks of `GPU_BLOCK` ratings.
        total: Number of ratings.
    """

    order: Tensor
    total: int


class GpuStageLoader(EpochLoader):
    """Dataloader of the stages of an epoch; it holds the ratings in random order on the network's device.

    The columns take 12 bytes per rating.

    Args:
        user: int32 [n], user indices.
        item: int32 [n], item indices.
        rating: float32 [n], rating units.
        network: Network whose scale turns ratings into targets, on the device of the training.
        seed: Seed of the order of the columns and, with the number of the epoch, of the order of the blocks.
    """

    def __init__(
        self, user: Tensor, item: Tensor, rating: Tensor, *, network: ScoringNetwork, seed: int = 0, **_: Any
    ) -> None:
        self.device = next(network.parameters()).device
        self.seed = seed
        scale = network.scale
        order = torch.randperm(len(user), generator=self._generator(0), device=self.device)
        self.user, self.item, self.target = (
            column.to(self.device)[order]
            for column in (user.to(torch.int32), item.to(torch.int32), (rating - scale.low) / (scale.high - scale.low))
        )
        self.counts = tuple(
            torch.bincount(index, minlength=size).cpu().numpy()
            for index, size in ((self.user, network.num_users), (self.item, network.num_items))
        )

    def _generator(self, number: int) -> torch.Generator:
        return torch.Generator(self.device).manual_seed((self.seed * SEED_FACTOR + number) % 2**63)

    @property
    def num_ratings(self) -> int:
        """Number of ratings of an epoch."""
        return len(self.user)

    def __len__(self) -> int:
        return STAGES

    def __iter__(self) -> Iterator[GpuStage]:
        full, rest = divmod(self.num_ratings, GPU_BLOCK)
        order = torch.randperm(full, generator=self._generator(self._epoch + 1), device=self.device, dtype=torch.int32)
        place = -1
        if rest:
            # The host places the ragged block: it must know which stage is short without waiting for the device.
            place = int(np.random.default_rng([self.seed, self._epoch]).integers(full + 1))
            order = torch.cat([order[:place], order.new_full((1,), full), order[place:]])
        bounds = [len(order) * number // STAGES for number in range(STAGES + 1)]
        start, self._start = self._start, 0
        for number in range(start, STAGES):
            low, high = bounds[number], bounds[number + 1]
            missing = GPU_BLOCK - rest if low <= place < high else 0
            self._served = number + 1
            yield GpuStage(order[low:high], (high - low) * GPU_BLOCK - missing)


class FusedGpuDescent(StageDescent):
    """Trains a network by stages of the Triton kernel.

    Args:
        network: Network to train in place; its tables lie on the loader's device.
        loader: Dataloader of the stages.
        optimizer: Optimiser with the accumulators.
        penalty: L2 penalty on factors.
        prior: SVD++ terms, if there are any.
        bias_l2: L2 penalties on user biases and on item biases.
        programs: Maximum number of programs of the kernel's grid; None for `fused_dot_gpu.programs`.
        step: Another implementation of `fused_dot_gpu.train_stage`.
    """

    def __init__(
        self,
        network: EmbeddingDot,
        loader: GpuStageLoader,
        optimizer: RowwiseAdagrad,
        penalty: Penalty,
        *,
        prior: SvdppPrior | None = None,
        bias_l2: tuple[float, float] = (BIAS_L2, BIAS_L2),
        programs: int | None = None,
        step: Callable[..., Tensor] | None = None,
    ) -> None:
        super().__init__(network, loader.counts, optimizer, penalty, bias_l2=bias_l2, prior=prior, device=loader.device)
        self.loader = loader
        if step is None:
            from cflightning.kernels import fused_dot_gpu

            step = fused_dot_gpu.train_stage
            if programs is None:
                max_count = max(int(counts.max()) for counts in loader.counts)
                processors = torch.cuda.get_device_properties(loader.device).multi_processor_count
                programs = fused_dot_gpu.programs(
                    loader.num_ratings, max_count, processors, *fused_dot_gpu.shape(network.dim)
                )
        self.step: Callable[..., Tensor] = step
        self.programs = programs or 1
        self.tables = *self.factors, *self.states, network.global_bias.detach().reshape(1)

    def train_batch(self, stage: GpuStage, learning_rate: float) -> Tensor:
        """Train on a stage; returns its sum of squared errors, squared rating units: float64 [], on the device."""
        self.set_penalties()
        sizes = self.step_sizes(learning_rate)
        sizes = sizes._replace(global_bias=sizes.global_bias / STAGES)  # see `fused_dot_gpu`
        columns = self.loader.user, self.loader.item, self.loader.target, stage.order
        loss = self.step(*columns, *self.tables, self.gradient_factor, *sizes, programs=self.programs)
        self.finish_stage(learning_rate)
        return loss * self.squared_unit


class FusedGpuEngine(StageEngine):
    """The fused engine on a CUDA GPU: trains networks by stages of the Triton kernel."""

    svdpp_term_class = SvdppTerm

    def make_loader(self, user: Tensor, item: Tensor, rating: Tensor, **options: Any) -> GpuStageLoader:
        """Make the dataloader of the stages."""
        return GpuStageLoader(user, item, rating, network=self.networks[0], **options)

    def start(self, inputs: EngineInputs, loader: GpuStageLoader, optimizer: RowwiseAdagrad) -> None:
        """Make the gradient descent of each network, whose state may come from a checkpoint."""
        self.descents = [
            FusedGpuDescent(network, loader, optimizer, inputs.penalty, prior=prior, bias_l2=inputs.bias_l2)
            for network, prior in zip_longest(self.networks, inputs.priors)
        ]
