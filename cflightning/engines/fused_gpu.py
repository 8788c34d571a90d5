"""The fused GPU step under Lightning's Trainer: its batches and its engine.

Under Lightning a batch is a stage, an eighth of an epoch, so a step of the Trainer costs once in millions of ratings
what autograd pays every batch. Nothing in a stage waits for the device: a stage's order is made there, its loss stays
there.

What autograd itself would need to come near on a GPU, and why it is left as it is: batches of one shape (the ragged
last one apart), AdamW with `capturable=True` and the learning rate as a tensor, manual optimisation whose whole step
is captured into a CUDA graph or compiled with `mode="reduce-overhead"`, and validation kept out of the graph's memory.
That saves launches (some 40 kernels, and Lightning's own half a millisecond a batch), not bytes: dense AdamW reads or
writes parameters, both moments and gradients 8 times a batch, 460 MB at 221,000 rows of dim 64, which at 4.8 TB/s and
16,384 ratings a batch bounds it at 170 million ratings a second, a 24th of the fused step's bound. All figures
computed, none measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cflightning.data.loaders.ratings import EpochLoader
from cflightning.engines.base import Engine, Plan, Together
from cflightning.engines.fused import GRID, RowAdagrad, default_rate
from cflightning.engines.svdpp_prior import Pull, SvdppPrior
from cflightning.kernels.rule import BIAS, GPU_BLOCK, L2, V_BIAS, V_FACTORS, Rule, side_table
from cflightning.models.penalty import BIAS_L2

if TYPE_CHECKING:
    from cflightning.models.embedding_dot import EmbeddingDot
    from cflightning.models.network import RatingNetwork

STAGES = 8
"""Batches of an epoch, and steps of the learning rate's schedule."""


class DeviceStage(NamedTuple):
    """A batch of the fused GPU step.

    Attributes:
        order: int32 [blocks], on the device; numbers of blocks of `GPU_BLOCK` ratings.
        total: ratings in it.
    """

    order: Tensor
    total: int


class DeviceStageLoader(EpochLoader):
    """Ratings on the network's device in a random order; iterates over the stages of an epoch.

    Lightning takes it as a dataloader. The columns take 12 bytes a rating.

    Args:
        user: int32 [n], rows.
        item: int32 [n], rows.
        rating: float32 [n], rating units.
        network: whose scale turns ratings into targets; on the device to train on.
        seed: of the columns' order and, with the epoch's number, of the blocks' order.
    """

    def __init__(
        self, user: Tensor, item: Tensor, rating: Tensor, *, network: RatingNetwork, seed: int = 0, **_: Any
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
            torch.bincount(rows, minlength=size).cpu().numpy()
            for rows, size in ((self.user, network.num_users), (self.item, network.num_items))
        )

    def _generator(self, number: int) -> torch.Generator:
        return torch.Generator(self.device).manual_seed((self.seed * 1_000_003 + number) % 2**63)

    @property
    def num_rows(self) -> int:
        """Ratings of an epoch."""
        return len(self.user)

    def __len__(self) -> int:
        return STAGES

    def __iter__(self) -> Iterator[DeviceStage]:
        full, rest = divmod(self.num_rows, GPU_BLOCK)
        order = torch.randperm(full, generator=self._generator(self._epoch + 1), device=self.device, dtype=torch.int32)
        place = -1
        if rest:
            # The host chooses where the ragged block goes: it must know which stage is short, and may not wait.
            place = int(np.random.default_rng([self.seed, self._epoch]).integers(full + 1))
            order = torch.cat([order[:place], order.new_full((1,), full), order[place:]])
        bounds = [len(order) * number // STAGES for number in range(STAGES + 1)]
        start, self._start = self._start, 0
        for number in range(start, STAGES):
            low, high = bounds[number], bounds[number + 1]
            missing = GPU_BLOCK - rest if low <= place < high else 0
            self._served = number + 1
            yield DeviceStage(order[low:high], (high - low) * GPU_BLOCK - missing)


class GpuEngine(Engine):
    """Runs stages on a network's own tables.

    Args:
        network: trained in place; its tables lie on the loader's device.
        loader: the ratings.
        optimizer: holds the accumulators.
        l2: see `RatingTask`.
        l2_exponent: see `RatingTask`.
        programs: of the kernel's grid at most; None for `fused_dot_gpu.programs`.
        step: another implementation of the step, for tests.
        prior: bags that the penalty pulls to; without them it pulls to zero, inside the step.
        bias_l2: of users and of items, see `objectives.penalty`.
    """

    def __init__(
        self,
        network: EmbeddingDot,
        loader: DeviceStageLoader,
        optimizer: RowAdagrad,
        l2: float,
        l2_exponent: float,
        programs: int | None = None,
        step: Callable[..., Tensor] | None = None,
        prior: SvdppPrior | None = None,
        bias_l2: tuple[float, float] = (BIAS_L2, BIAS_L2),
    ) -> None:
        self.network, self.optimizer, self.loader = network, optimizer, loader
        self.rule = Rule(l2=l2, l2_exponent=l2_exponent)
        if step is None:
            from cflightning.kernels import fused_dot_gpu

            step = fused_dot_gpu.train_stage
            if programs is None:
                most = max(int(counts.max()) for counts in loader.counts)
                processors = torch.cuda.get_device_properties(loader.device).multi_processor_count
                programs = fused_dot_gpu.programs(loader.num_rows, most, processors, *fused_dot_gpu.shape(network.dim))
        self.step: Callable[..., Tensor] = step
        self.programs = programs or 1
        tables = network.user_factors, network.item_factors, network.user_bias, network.item_bias
        users, items, user_bias, item_bias = (table.weight.detach() for table in tables)
        self.biases = user_bias, item_bias
        self.sides = []
        for counts, bias, costs, *sums in zip(loader.counts, self.biases, bias_l2, tables[:2], tables[2:], strict=True):
            made = side_table(counts, bias.squeeze(-1).cpu().numpy(), self.rule, costs)
            side = torch.from_numpy(made).to(loader.device)
            for column, table in zip((V_FACTORS, V_BIAS), sums, strict=True):
                side[:, column] = optimizer.state[table.weight]["sum"].to(loader.device)
                optimizer.state[table.weight]["sum"] = side[:, column]  # one memory from here on
            self.sides.append(side)
        self.penalties = [side[:, L2].clone() for side in self.sides]
        self.pull: Pull | None = None
        if prior is not None:
            rated = [torch.from_numpy(rows).to(loader.device) for rows in loader.counts]
            self.pull = Pull(network, prior, self.sides, rated, self.rule, STAGES)
        self.tables = users, items, *self.sides, network.global_bias.detach().reshape(1)
        self.gradient = 2 * (1 + 2 * network.scale.margin) ** 2
        self.squared_unit = (network.scale.high - network.scale.low) ** 2

    def run(self, stage: DeviceStage, learning_rate: float) -> Tensor:
        """Train on a stage; return its sum of squared errors, squared rating units: float64 [], on the device."""
        rule, loader = self.rule, self.loader
        rates = (
            learning_rate,
            learning_rate * rule.bias_rate,
            learning_rate * rule.global_rate / GRID,  # see fused_dot_gpu: the CPU's cells share the bias's work
            rule.eps,
        )
        if self.pull is None:
            for side, penalty in zip(self.sides, self.penalties, strict=True):
                side[:, L2] = self.strength * penalty
        columns = loader.user, loader.item, loader.target, stage.order
        loss = self.step(*columns, *self.tables, self.gradient, *rates, programs=self.programs)
        if self.pull is not None:
            self.pull.after_stage(learning_rate, self.strength)
        for bias, side in zip(self.biases, self.sides, strict=True):
            bias.squeeze(-1).copy_(side[:, BIAS])  # so that whoever looks in between sees what is trained
        return loss * self.squared_unit

    def close(self) -> None:
        """Nothing to let go of."""


def plan(task: Any, networks: Sequence[EmbeddingDot]) -> Plan:
    """The fused engine on a CUDA GPU for a task, on all its learners."""

    def start(loader: DeviceStageLoader, optimizer: RowAdagrad) -> Engine:
        l2, exponent = task.penalty
        return Together([
            GpuEngine(network, loader, optimizer, l2, exponent, prior=prior, bias_l2=task.bias_l2)
            for network, prior in zip_longest(networks, task.ensemble.priors)
        ])  # fmt: skip

    rate = partial(default_rate, bags=task.svdpp != "none")
    return Plan("fused", partial(DeviceStageLoader, network=networks[0]), partial(RowAdagrad, networks), rate, start)
