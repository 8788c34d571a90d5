"""fastai: collab_learner as in its book (dot product, biases, sigmoid range), by autograd.

The default loader samples rows with replacement, so an epoch uses 63 % of them; the second recipe uses another loader,
which does not.
"""

import numpy as np
from peers.common import Recipe, Split

DISTRIBUTIONS = ("fastai", "torch", "numpy")
BOOK = {"rate": 5e-3, "decay": 0.1}
RECIPES = [
    Recipe("collab_learner, 5 epochs, lr 5e-3, wd .1", {"loader": "default", **BOOK}, 5, slow=("ml-1m",)),
    Recipe("the same, TabDataLoader", {"loader": "TabDataLoader", **BOOK}, 5, slow=("ml-1m",)),
]


def load(split: Split, threads: int):
    import pandas as pd
    import torch
    from fastai.collab import Categorify, TabDataLoader, TabularCollab, TransformBlock

    torch.set_num_threads(threads)
    table = pd.DataFrame({"user": split.train.user, "item": split.train.item, "rating": split.train.rating})
    # As CollabDataLoaders.from_df, but all rows train; some are needed for validation after every epoch.
    parts = list(range(len(table))), list(range(64))
    names = {"cat_names": ["user", "item"], "y_names": ["rating"], "y_block": TransformBlock()}
    rows = TabularCollab(table, [Categorify], splits=parts, **names)
    loaders = {"default": rows.dataloaders(bs=64), "TabDataLoader": rows.dataloaders(bs=64, dl_type=TabDataLoader)}
    low, high = split.scale
    return loaders, split.test, (min(0, low - 0.5), high + 0.5)  # (0, 5.5) for stars, as in the book


def fit(state, epochs: int, *, loader: str, rate: float, decay: float):
    from fastai.collab import collab_learner
    from fastai.torch_core import set_seed

    set_seed(0)
    learner = collab_learner(state[0][loader], y_range=state[2])
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(epochs, rate, wd=decay)
    return learner


def predict(state, learner) -> np.ndarray:
    import torch

    data, test = learner.dls, state[1]
    numbers = [[data.classes[name].o2i[value] for value in getattr(test, name).tolist()] for name in ("user", "item")]
    with torch.inference_mode():
        return learner.model.eval()(torch.tensor(numbers).T).numpy()  # 0 is the unknown id
