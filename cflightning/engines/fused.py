"""The fused CPU step under Lightning's Trainer: its batches, its optimiser state, and when it can be used."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor

from cflightning.data.loaders.ratings import EpochLoader
from cflightning.engines.base import Engine, Plan, Together
from cflightning.engines.svdpp_prior import Pull, SvdppPrior
from cflightning.kernels import compiling
from cflightning.kernels.rule import BIAS, L2, V_BIAS, V_FACTORS, Rule, side_table
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.models.penalty import BIAS_L2
from cflightning.models.svdpp import SvdppTerm

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from cflightning.models.network import RatingNetwork

log = logging.getLogger(__name__)

GRID = 8
"""Stages of an epoch, and cells of a stage."""


class Stage(NamedTuple):
    """A batch of the fused step: this process's share of `GRID` cells that share no user and no item.

    Attributes:
        cells: int64 [share of grid], numbers of the cells, largest first.
        order: int32 [blocks], of the whole epoch: the blocks of every cell in the order to come.
        total: ratings in it over all processes.
    """

    cells: np.ndarray
    order: np.ndarray
    total: int


class StageLoader(EpochLoader):
    """Ratings in the fused step's layout; iterates over the stages of an epoch. Lightning takes it as a dataloader.

    With several processes each takes the cells of its own groups of users, always the same, and those of the items in
    turn: stratified SGD (Gemulla et al. 2011).

    Args:
        user: int32 [n], rows; the columns are taken over and sorted in place.
        item: int32 [n], rows.
        rating: float32 [n], rating units.
        network: whose scale turns ratings into targets.
        seed: of the layout and, with the epoch's number, of the orders.
        rank: this process's number.
        world_size: number of processes; from the ninth on they only watch.
    """

    def __init__(
        self,
        user: Tensor,
        item: Tensor,
        rating: Tensor,
        *,
        network: RatingNetwork,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        **_: Any,
    ) -> None:
        from cflightning.kernels.layout import block_starts, make_layout

        scale = network.scale
        target = rating.sub_(scale.low).div_(scale.high - scale.low).numpy()  # in place: nothing else of their size
        columns = user.int().numpy(), item.int().numpy(), target
        self.layout = make_layout(*columns, network.num_users, network.num_items, GRID, seed, copy=False)
        self.blocks = block_starts(self.layout.starts)
        self.seed = seed
        self.world_size = world_size
        self.own_groups = np.arange(rank, GRID, world_size)

    @property
    def num_rows(self) -> int:
        """Ratings of an epoch."""
        return len(self.layout.user)

    def __len__(self) -> int:
        return GRID

    def __iter__(self) -> Iterator[Stage]:
        from cflightning.kernels.layout import fresh_order

        rng = np.random.default_rng([self.seed, self._epoch])
        order = fresh_order(self.blocks, np.uint64(rng.integers(1 << 62)))
        shifts = rng.permutation(GRID)
        start, self._start = self._start, 0
        for number in range(start, GRID):
            cells = np.arange(GRID) * GRID + (np.arange(GRID) + shifts[number]) % GRID
            total = int((self.layout.starts[cells + 1] - self.layout.starts[cells]).sum())
            own = cells[self.own_groups]
            sizes = self.layout.starts[own + 1] - self.layout.starts[own]
            self._served = number + 1
            yield Stage(own[np.argsort(-sizes)], order, total)  # a large one last would keep a thread waiting


class RowAdagrad(torch.optim.Optimizer):
    """The fused step's memory, where Lightning saves and restores it: one sum of squares a row of every table.

    `step` runs the closure, which does the update.

    Args:
        networks: whose tables are trained.
        lr: peak learning rate.
    """

    def __init__(self, networks: Sequence[EmbeddingDot], lr: float) -> None:
        parameters = [parameter for network in networks for parameter in network.parameters()]
        super().__init__(parameters, {"lr": lr})
        for parameter in parameters:
            if parameter.ndim:
                self.state[parameter]["sum"] = torch.zeros(len(parameter))

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Run the closure without gradients."""
        with torch.no_grad():
            return closure() if closure is not None else None


class FusedEngine(Engine):
    """Runs stages on a network's own tables.

    Args:
        network: trained in place; its tables lie on the CPU.
        loader: the ratings.
        optimizer: holds the accumulators.
        l2: see `RatingTask`.
        l2_exponent: see `RatingTask`.
        threads: any number gives the same result, bit for bit.
        step: another implementation of the step, for tests.
        prior: bags that the penalty pulls to; without them it pulls to zero, inside the step.
        bias_l2: of users and of items, see `objectives.penalty`.
    """

    def __init__(
        self,
        network: EmbeddingDot,
        loader: StageLoader,
        optimizer: RowAdagrad,
        l2: float,
        l2_exponent: float,
        threads: int,
        step: Callable[..., Any] | None = None,
        prior: SvdppPrior | None = None,
        bias_l2: tuple[float, float] = (BIAS_L2, BIAS_L2),
    ) -> None:
        from cflightning.kernels import fused_dot

        self.network, self.optimizer, self.layout = network, optimizer, loader.layout
        self.alone = loader.world_size == 1
        self.own_users = np.isin(self.layout.user_group, loader.own_groups)
        self.rule = Rule(l2=l2, l2_exponent=l2_exponent)
        self.step = step or fused_dot.kernel(network.dim)
        self.blocks = loader.blocks
        self.helpers = min(threads, GRID) - 1
        self.pool = ThreadPoolExecutor(self.helpers) if self.helpers else None
        tables = network.user_factors, network.item_factors, network.user_bias, network.item_bias
        users, items, user_bias, item_bias = (table.weight.detach() for table in tables)
        self.biases = user_bias, item_bias
        self.sides = []
        layout = self.layout
        counted = layout.user_counts, layout.item_counts
        for counts, bias, costs, *sums in zip(counted, self.biases, bias_l2, tables[:2], tables[2:], strict=True):
            side = side_table(counts, bias.squeeze(-1).numpy(), self.rule, costs)
            for column, table in zip((V_FACTORS, V_BIAS), sums, strict=True):
                side[:, column] = optimizer.state[table.weight]["sum"].numpy()
                optimizer.state[table.weight]["sum"] = torch.from_numpy(side[:, column])  # one memory from here on
            self.sides.append(side)
        self.penalties = [side[:, L2].copy() for side in self.sides]
        self.pull: Pull | None = None
        if prior is not None:
            sides, rated = map(torch.from_numpy, self.sides), map(torch.from_numpy, counted)
            for bag in prior.terms.values():
                bag.use(self.pool, self.helpers)
            self.pull = Pull(network, prior, [*sides], [*rated], self.rule, GRID)
        self.tables = users.numpy(), items.numpy(), *self.sides
        self.bias = network.global_bias.detach().numpy().reshape(1)
        widening = 1 + 2 * network.scale.margin
        self.gradient = np.float32(2 * widening**2)
        self.squared_unit = (network.scale.high - network.scale.low) ** 2

    def run(self, stage: Stage, learning_rate: float) -> float:
        """Train on this process's share of a stage; return its sum of squared errors, squared rating units."""
        rule, layout = self.rule, self.layout
        rates = (
            learning_rate,
            learning_rate * rule.bias_rate,
            learning_rate * rule.global_rate,
            rule.eps,
        )
        if self.pull is None:
            for side, penalty in zip(self.sides, self.penalties, strict=True):
                side[:, L2] = self.strength * penalty
        taken, biases, squares = (
            np.zeros(1, np.int64),
            np.zeros(len(stage.cells), np.float32),
            np.zeros(len(stage.cells)),
        )
        columns = layout.user, layout.item, layout.target, layout.starts, self.blocks, stage.order
        constants = np.float32(self.bias[0]), self.gradient, *map(np.float32, rates)
        job = *columns, stage.cells, taken, biases, squares, *self.tables, *constants
        # Plain threads, not numba's parallel=True: the kernel lets go of Python's lock, there is no second OpenMP
        # beside torch's, and a thread that is held up takes fewer cells.
        others = [self.pool.submit(self.step, *job) for _ in range(self.helpers)] if self.pool is not None else []
        self.step(*job)
        for other in others:
            other.result()
        cell_bias = np.zeros(GRID, np.float32)
        cell_bias[stage.cells // GRID] = biases
        if not self.alone:
            self._exchange(np.isin(self.layout.item_group, stage.cells % GRID), cell_bias)
        self.bias[0] = cell_bias.mean()  # each cell saw its part of the stage
        if self.pull is not None:
            self.pull.after_stage(learning_rate, self.strength)
        for bias, side in zip(self.biases, self.sides, strict=True):
            bias.squeeze(-1).numpy()[:] = side[:, BIAS]  # so that whoever looks in between sees what is trained
        return float(squares[np.argsort(stage.cells)].sum()) * self.squared_unit

    def _exchange(self, own_items: np.ndarray, cell_bias: np.ndarray) -> None:
        """Give every process what the others have updated; any number of processes gives the same result.

        Every row and every cell has one owner, so sums in which the others give zeros are exact.
        """
        for own, factors, side in zip((self.own_users, own_items), self.tables[:2], self.sides, strict=True):
            for table in (factors, side):
                table[~own] = 0
                torch.distributed.all_reduce(torch.from_numpy(table))
        torch.distributed.all_reduce(torch.from_numpy(cell_bias))

    def close(self) -> None:
        """End the threads."""
        if self.pool is not None:
            self.pool.shutdown()


def compiled_svdpp_term() -> type[SvdppTerm]:
    """The compiled kind of bag."""
    from cflightning.kernels.bags import CompiledSvdppTerm  # compiled code is imported only where it runs

    return CompiledSvdppTerm


def plan(task: Any, networks: Sequence[EmbeddingDot]) -> Plan:
    """The fused engine for a task, on all its learners."""

    def start(loader: StageLoader, optimizer: RowAdagrad) -> Engine:
        threads = torch.get_num_threads()
        log.info("training by the fused engine on %d thread%s", threads, "s" if threads > 1 else "")
        l2, exponent = task.penalty
        return Together([
            FusedEngine(network, loader, optimizer, l2, exponent, threads, prior=prior, bias_l2=task.bias_l2)
            for network, prior in zip_longest(networks, task.ensemble.priors)
        ])  # fmt: skip

    rate = partial(default_rate, bags=task.svdpp != "none")
    return Plan(
        "fused",
        partial(StageLoader, network=networks[0]),
        partial(RowAdagrad, networks),
        rate,
        start,
        compiled_svdpp_term,
    )


def why_not(trainer: Trainer, network: RatingNetwork, task: Any, batch_size: int | None = None) -> str | None:
    """Why the fused step cannot be used, or None.

    Args:
        trainer: that is to fit.
        network: that is to be trained.
        task: that asks; with engine `auto`, settings that count batches are reasons, too.
        batch_size: as given by the user.
    """
    counted = (
        batch_size
        or "OneCycleLR" in str(task.lr_scheduler)
        or trainer.max_steps != -1
        or trainer.limit_train_batches != 1.0
    )
    trial: Any = trainer.fast_dev_run  # type: ignore[attr-defined]
    device = trainer.strategy.root_device
    reasons = {
        f"it knows EmbeddingDot, not {type(network).__name__}": not isinstance(network, EmbeddingDot),
        f"it does not know {type(trainer.strategy).__name__}": not isinstance(
            trainer.strategy, (SingleDeviceStrategy, DDPStrategy)
        ),
        "it computes in 32-bit": trainer.precision != "32-true",
        "it has its own optimiser": bool(task.optimizer or task.weight_decay),
        "it squeezes by a sigmoid": not network.scale.sigmoid,
        "it knows no gradients to accumulate or clip": trainer.accumulate_grad_batches != 1
        or trainer.gradient_clip_val is not None,
        "its batches are eighths of an epoch": task.engine == "auto" and counted and not trial,
    }
    of_device = _why_not_on_cpu() if device.type == "cpu" else _why_not_on_gpu(device, trainer, task)
    return of_device or next((reason for reason, holds in reasons.items() if holds), None)


def _why_not_on_cpu() -> str | None:
    return compiling.why_not()


def _why_not_on_gpu(device: torch.device, trainer: Trainer, task: Any) -> str | None:
    reasons = {
        "it runs on the CPU and on CUDA GPUs": device.type != "cuda" or torch.version.hip is not None,
        "on a GPU it has to be asked for, --model.engine fused": task.engine == "auto",  # no GPU has run it yet
        "on GPUs it runs in one process": trainer.world_size > 1,
        "on a GPU the order of its sums is open": torch.are_deterministic_algorithms_enabled(),
        "it needs triton (pip install 'cflightning[gpu]')": find_spec("triton") is None,
    }
    found = next((reason for reason, holds in reasons.items() if holds), None)
    if found is None and torch.cuda.get_device_capability(device) < (8, 0):
        return "it needs a GPU of compute capability 8.0 or later"
    return found


def default_rate(epochs: int | None, bags: bool = False) -> float:
    """Peak learning rate of the fused step: with more epochs lower, as chosen on validation at 8 and 10 epochs."""
    rate = 0.1 if bags else 0.075
    return rate * math.sqrt(10 / epochs) if epochs and epochs > 0 else rate
