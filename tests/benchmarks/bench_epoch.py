"""What Lightning costs: an epoch through the Trainer against a bare torch loop over the same tensors.

    python tests/benchmarks/bench_epoch.py [--rows 900000] [--dim 64] [--repeats 5]

Both do the same steps with the same network, objective, optimiser and schedule; measured in CPU seconds of the process,
alternating, medians of the repeats. The bar is a ratio of 1.3.
"""

import argparse
import logging
import statistics
import time
import warnings

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer

from cflightning import EmbeddingDotTask, RatingsDataModule
from cflightning.objectives.squared_error import squared_error
from cflightning.tasks.schedule import one_cycle_schedule


class Clock(Callback):
    """CPU seconds of the second epoch: the first also warms up."""

    def on_train_epoch_start(self, trainer, pl_module):
        self.start = time.process_time()

    def on_train_epoch_end(self, trainer, pl_module):
        self.seconds = time.process_time() - self.start


def lightning(data: RatingsDataModule, task: EmbeddingDotTask) -> float:
    clock = Clock()
    trainer = Trainer(max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, limit_val_batches=0,
                      enable_progress_bar=False, enable_model_summary=False, callbacks=[clock])  # fmt: skip
    trainer.fit(task, data)
    return clock.seconds


def bare(data: RatingsDataModule, task: EmbeddingDotTask) -> float:
    """The same steps by hand; `task` has been fitted, so that it has a network and counts."""
    network, l2 = task.network.train(), task.l2
    loader = data.train_dataloader()
    user, item, rating = loader.columns
    size, steps = loader.batch_size, len(loader)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, betas=(0.9, 0.95), fused=True)
    schedule = one_cycle_schedule(optimizer, lambda: 2 * steps)
    low, high = task.facts["rating_range"]
    for _ in range(2):
        start = time.process_time()
        order = torch.randperm(len(user))
        columns = user[order], item[order], rating[order]
        for begin in range(0, len(order), size):
            u, i, r = (column[begin : begin + size] for column in columns)
            loss = squared_error(network(u, i), r) / (high - low) ** 2
            users, items = network.squared_norms(u, i)
            loss = (loss + l2 * (task.user_weights[u] @ users + task.item_weights[i] @ items)) / len(u)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        seconds = time.process_time() - start
    return seconds


def main() -> float:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=900_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    scale = options.rows / 900_000
    made = {"num_users": int(6040 * scale**0.5), "num_items": int(3706 * scale**0.5), "num_ratings": options.rows}
    data = RatingsDataModule(source="synthetic", synthetic=made, test_fraction=0, val_fraction=0)
    task = EmbeddingDotTask(dim=options.dim)
    times = [(lightning(data, task), bare(data, task)) for _ in range(options.repeats)]
    trainer, loop = (statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median(np.divide(*np.array(times).T).tolist())
    print(f"{options.rows:,} rows, batch {data.batch_size}, dim {options.dim}, {torch.get_num_threads()} threads")
    print(f"CPU seconds an epoch: Trainer {trainer:.2f}, bare loop {loop:.2f}; ratio {ratio:.2f} (bar 1.3)")
    return ratio


if __name__ == "__main__":
    main()
