"""Speed of the fused GPU step: the kernel for several dims, and epochs in Lightning's Trainer.

    python tests/benchmarks/bench_gpu.py [--rows 25000000] [--repeats 7] [--programs 0]

Synthetic ratings with the size and popularity distribution of MovieLens 25M. Kernel times are medians of repeated
epochs, measured by the device, without compilation. The lower bound is the memory traffic of a rating at the speed of a
large copy on the same device. Without a CUDA GPU the benchmark exits.
"""

import argparse
import statistics
import sys
import time
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from cflightning.engines.fused_gpu import FusedGpuDescent, GpuStage, GpuStageLoader
from cflightning.engines.stage_engine import RowwiseAdagrad
from cflightning.kernels.adagrad import GPU_BLOCK, STATE_WIDTH
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.models.penalty import Penalty

USERS, ITEMS = 162_542, 59_048  # including the unknown ids
EPOCHS = 10
GOAL = 200e6


def popular(rows: int, offset: float, n: int, device: torch.device) -> Tensor:
    """Sample indices from 1 with weights 1 / (rank + offset): int64 [n]."""
    weight = 1 / (torch.arange(rows - 1, device=device, dtype=torch.float64) + offset)
    share = weight.cumsum(0) / weight.sum()
    return torch.searchsorted(share, torch.rand(n, device=device, dtype=torch.float64)).clamp(max=rows - 2) + 1


def ratings(n: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Create columns; the most active user has 0.13 % of the ratings, the top item 0.34 %, as in MovieLens 25M."""
    torch.manual_seed(0)
    user, item = popular(USERS, 100, n, device), popular(ITEMS, 40, n, device)
    return user, item, torch.randint(1, 11, (n,), device=device) / 2


def network(dim: int, device: torch.device) -> EmbeddingDot:
    return EmbeddingDot(USERS, ITEMS, dim, (0.5, 5.0), 3.5, margin=0.125).to(device)


def seconds(work: Any, device: torch.device) -> float:
    """Return the seconds of a call, by the clock of the device if it has one."""
    if device.type != "cuda":
        start = time.perf_counter()
        work()
        return time.perf_counter() - start
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000


def copy_speed(device: torch.device, size: int = 1 << 30) -> float:
    """Return the bandwidth of a large copy in bytes per second, reads plus writes."""
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times = [seconds(lambda: target.copy_(source), device) for _ in range(10)]
    return 2 * size / statistics.median(times[3:])


def bytes_per_rating(dim: int) -> float:
    """Bytes moved per rating: its columns and order, vectors and states of both sides read and written."""
    return 12 + 4 / GPU_BLOCK + 2 * 2 * (4 * dim + 4 * STATE_WIDTH)


def kernel_table(columns: tuple[Tensor, ...], device: torch.device, repeats: int, programs: int, speed: float) -> None:
    from cflightning.kernels.fused_dot_gpu import shape

    rows = len(columns[0])
    print(f"{'dim':>4} {'in flight':>10} {'bytes/rating':>13} {'floor M/s':>10} {'kernel M/s':>11} {'of floor':>9}")
    for dim in (16, 32, 64, 128, 256):
        model = network(dim, device)
        loader = GpuStageLoader(*columns, network=model)
        engine = FusedGpuDescent(
            model, loader, RowwiseAdagrad([model], 1e-3), Penalty(0.008, 0.5), programs=programs or None
        )

        def epoch(number: int, loader: GpuStageLoader = loader, engine: FusedGpuDescent = engine) -> float:
            loader.set_epoch(number)
            stages = list(loader)
            return seconds(lambda: [engine.train_batch(stage, 1e-3) for stage in stages], device)

        epoch(0)
        rate = rows / statistics.median(epoch(number) for number in range(1, repeats + 1))
        floor = speed / bytes_per_rating(dim)
        print(
            f"{dim:>4} {engine.programs * shape(dim)[0]:>10,} {bytes_per_rating(dim):>13,.0f} {floor / 1e6:>10,.0f} "
            f"{rate / 1e6:>11,.0f} {rate / floor:>9.0%}",
            flush=True,
        )


class Fit(LightningModule):
    """Minimal task for the engine in a Trainer; measures the epochs after the first, which compiles."""

    def __init__(self, columns: tuple[Tensor, ...], device: torch.device, programs: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network = network(64, device)
        self.columns, self.programs = columns, programs
        self.loss: Any = 0.0
        self.starts: list[float] = []

    def train_dataloader(self) -> Any:
        return GpuStageLoader(*self.columns, network=self.network)

    def configure_optimizers(self) -> Any:
        return RowwiseAdagrad([self.network], 0.02)

    def on_train_start(self) -> None:
        optimizer: Any = self.optimizers(use_pl_optimizer=False)
        loader = self.trainer.train_dataloader
        self.engine = FusedGpuDescent(
            self.network, loader, optimizer, Penalty(0.008, 0.5), programs=self.programs or None
        )

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def on_train_epoch_start(self) -> None:
        if self.current_epoch == 1:
            self.starts.append(self.now())
        self.loss = 0.0

    def training_step(self, stage: GpuStage, batch_idx: int) -> None:
        self.loss = self.loss + self.optimizers().step(closure=lambda: self.engine.train_batch(stage, 0.02))

    def on_train_end(self) -> None:
        self.starts.append(self.now())


def through_the_trainer(columns: tuple[Tensor, ...], device: torch.device, programs: int, speed: float) -> None:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    module = Fit(columns, device, programs)
    accelerator = "gpu" if device.type == "cuda" else "cpu"
    Trainer(accelerator=accelerator, devices=1, max_epochs=EPOCHS, enable_checkpointing=False, **quiet).fit(module)
    spent = (module.starts[1] - module.starts[0]) / (EPOCHS - 1)
    rate, floor = len(columns[0]) / spent, speed / bytes_per_rating(64)
    rmse = float(module.loss / len(columns[0])) ** 0.5
    print(f"Trainer, dim 64: {spent * 1000:,.1f} ms an epoch, {rate / 1e6:,.0f} M ratings/s, {rate / floor:.0%} of the "
          f"floor ({floor / 1e6:,.0f} M/s), {rate / GOAL:.2f} times the goal; train RMSE {rmse:.3f}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=25_000_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--programs", type=int, default=0, help="of the kernel's grid; 0 for its own choice")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("bench_gpu: no CUDA GPU here, nothing to measure")
        sys.exit(0)
    device = torch.device("cuda", torch.cuda.current_device())
    speed = copy_speed(device)
    print(f"{torch.cuda.get_device_name(device)}; copy {speed / 1e12:.2f} TB/s read and written")
    columns = ratings(options.rows, device)
    print(f"{options.rows:,} ratings, {USERS:,} x {ITEMS:,} rows")
    kernel_table(columns, device, options.repeats, options.programs, speed)
    through_the_trainer(columns, device, options.programs, speed)


if __name__ == "__main__":
    main()
