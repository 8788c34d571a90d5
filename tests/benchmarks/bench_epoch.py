"""Speed of the autograd engine in Lightning relative to a manual loop over the same tensors.

    python tests/benchmarks/bench_epoch.py [--rows 900000] [--dim 64] [--batch-size 8192] [--repeats 7]

The loop has parameters in a dict, one lookup per vector, fused AdamW and a schedule, with the same arithmetic. Each
measures the epoch after a warm-up epoch, alternating; medians of wall-clock and CPU seconds. Bar: at least 90 % of the
loop's ratings per second.
"""

import argparse
import logging
import statistics
import time
import warnings

import torch
from lightning.pytorch import Callback, Trainer

from cflightning import EmbeddingDotTask, RatingsDataModule
from cflightning.data.splits.options import SplitOptions


def now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


class Clock(Callback):
    """Return wall-clock and CPU seconds of the second epoch; the first is a warm-up."""

    def on_train_epoch_start(self, trainer, pl_module):
        self.start = now()

    def on_train_epoch_end(self, trainer, pl_module):
        self.seconds = tuple(end - start for start, end in zip(self.start, now(), strict=True))


def lightning(data: RatingsDataModule, task: EmbeddingDotTask) -> tuple[float, ...]:
    clock = Clock()
    trainer = Trainer(max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, limit_val_batches=0,
                      enable_progress_bar=False, enable_model_summary=False, callbacks=[clock])  # fmt: skip
    trainer.fit(task, data)
    return clock.seconds


def by_hand(data: RatingsDataModule, task: EmbeddingDotTask) -> tuple[float, ...]:
    """Train the manual loop; `task` is fitted, so it has a network and counts."""
    look_up = torch.nn.functional.embedding
    tables = {name: value.detach().clone().requires_grad_() for name, value in task.network.named_parameters()}
    p, q, bu, bi = (tables[f"{name}.weight"] for name in ("user_factors", "item_factors", "user_bias", "item_bias"))
    loader, scale, l2 = data.train_dataloader(), task.network.scale, task.l2
    (user, item, rating), size = loader.columns, loader.batch_size
    optimizer = torch.optim.AdamW(tables.values(), lr=1e-4, weight_decay=0, betas=(0.9, 0.95), fused=True)
    steps = 2 * len(loader)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=steps)
    low, high = task.metadata.rating_range
    for _ in range(2):
        start = now()
        order = torch.randperm(len(user))
        columns = user[order], item[order], rating[order]
        seen = torch.zeros(())
        for begin in range(0, len(order), size):
            u, i, r = (column[begin : begin + size] for column in columns)
            pu, qi, bpu, bqi = look_up(u, p), look_up(i, q), look_up(u, bu).squeeze(-1), look_up(i, bi).squeeze(-1)
            z = (pu * qi).sum(-1) + bpu + bqi + tables["global_bias"]
            loss = (scale.low + (scale.high - scale.low) * torch.sigmoid(z) - r).square().sum()
            seen += loss.detach()
            users = pu.square().sum(-1) + 0.1 * bpu.square()
            items = qi.square().sum(-1) + 0.1 * bqi.square()
            penalty = task.user_weights[u] @ users + task.item_weights[i] @ items
            optimizer.zero_grad()
            ((loss / (high - low) ** 2 + l2 * penalty) / len(u)).backward()
            optimizer.step()
            schedule.step()
        seconds = tuple(end - begin for begin, end in zip(start, now(), strict=True))
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=900_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=8192)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    scale = options.rows / 900_000
    made = {"num_users": int(6040 * scale**0.5), "num_items": int(3706 * scale**0.5), "num_ratings": options.rows}
    data = RatingsDataModule(
        source="synthetic",
        synthetic=made,
        batch_size=options.batch_size,
        split=SplitOptions(test_fraction=0, val_fraction=0),
    )
    task = EmbeddingDotTask(dim=options.dim, objective="mse", engine="autograd")
    times = [(lightning(data, task), by_hand(data, task)) for _ in range(options.repeats)]
    print(f"{options.rows:,} rows, batch {data.batch_size}, dim {options.dim}, {torch.get_num_threads()} threads")
    for number, clock in enumerate(("wall-clock", "CPU")):
        trainer, loop = (statistics.median(pair[side][number] for pair in times) for side in (0, 1))
        share = statistics.median(loop[number] / trainer[number] for trainer, loop in times)
        print(f"{clock}: Trainer {trainer:.2f} s an epoch ({options.rows / trainer / 1e6:.2f} M ratings/s), loop "
              f"{loop:.2f} s; {share:.0%} of the loop's rate (bar 90 %)")  # fmt: skip


if __name__ == "__main__":
    main()
