"""cflightning from Python, timed like the other libraries: the whole `Trainer.fit` call, including set-up.

This runner uses the project's environment. The command line is measured by the driver.
"""

import logging
import tempfile
import warnings
from functools import partial
from pathlib import Path

import numpy as np
from peers.common import Part, Recipe, Split

from cflightning.data.splits.options import SplitOptions

DISTRIBUTIONS = ("cflightning", "torch", "lightning", "numba", "numpy")
RECIPES = [
    Recipe("fused, defaults, from Python, including set-up", {"engine": "fused"}, 10),
    Recipe("autograd, defaults, from Python, including set-up", {"engine": "autograd"}, 10),
]


def write(part: Part, path: Path) -> str:
    rows = "".join(f"{user},{item},{rating:g}\n" for user, item, rating in zip(*part, strict=True))
    path.write_text("user,item,rating\n" + rows)
    return str(path)


def load(split: Split, threads: int):
    import torch

    from cflightning import RatingsDataModule

    torch.set_num_threads(threads)
    for name in ("lightning.pytorch", "cflightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    scratch = tempfile.TemporaryDirectory()
    folder = Path(scratch.name)
    test = write(split.test, folder / "test.csv")
    read = partial(RatingsDataModule, test_path=test, split=SplitOptions(method="predefined", val_fraction=0))
    data = read(write(split.train, folder / "train.csv"))
    data.setup("fit")
    few = read(write(Part(*(column[:1000] for column in split.train)), folder / "few.csv"))
    for recipe in RECIPES:  # compiles the kernels or loads them from the cache
        fit((few, scratch), 1, **recipe.options)
    return data, scratch


def fit(state, epochs: int, **options):
    from cflightning import EmbeddingDotTask, Trainer

    data, scratch = state
    task = EmbeddingDotTask(objective="mse", **options)
    Trainer(max_epochs=epochs, default_root_dir=scratch.name, enable_progress_bar=False).fit(task, data)
    return task


def predict(state, task) -> np.ndarray:
    import torch

    with torch.inference_mode():
        parts = [task.network(batch.user, batch.item) for batch in state[0].test_dataloader()]
    return torch.cat(parts).numpy()
