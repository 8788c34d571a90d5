"""fastai: collab_learner as its book teaches it (dot product, biases, sigmoid range), by autograd."""

import numpy as np
from peers.common import Recipe, Split

DISTRIBUTIONS = ("fastai", "torch", "numpy")
RECIPES = [
    Recipe("collab_learner, 5 epochs, lr 5e-3, wd .1", {"rate": 5e-3, "decay": 0.1}, 5, slow=("ml-1m",)),
]


def load(split: Split, threads: int):
    import pandas as pd
    import torch
    from fastai.collab import Categorify, TabularCollab, TransformBlock

    torch.set_num_threads(threads)
    table = pd.DataFrame({"user": split.train.user, "item": split.train.item, "rating": split.train.rating})
    # What CollabDataLoaders.from_df does, but every row trains; it needs some to validate on after every epoch.
    parts = list(range(len(table))), list(range(64))
    names = {"cat_names": ["user", "item"], "y_names": ["rating"], "y_block": TransformBlock()}
    return TabularCollab(table, [Categorify], splits=parts, **names).dataloaders(bs=64), split.test


def fit(state, epochs: int, *, rate: float, decay: float, **options):
    from fastai.collab import collab_learner
    from fastai.torch_core import set_seed

    set_seed(0)
    learner = collab_learner(state[0], y_range=(0, 5.5), **options)
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(epochs, rate, wd=decay)
    return learner


def predict(state, learner) -> np.ndarray:
    import torch

    data, test = state
    numbers = [[data.classes[name].o2i[value] for value in getattr(test, name).tolist()] for name in ("user", "item")]
    with torch.inference_mode():
        return learner.model.eval()(torch.tensor(numbers).T).numpy()  # number 0 stands for the unknown
