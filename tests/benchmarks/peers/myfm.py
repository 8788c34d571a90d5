"""myFM: Bayesian matrix factorisation (a factorisation machine of user and item) by Gibbs sampling, on one thread."""

import numpy as np
from peers.common import Part, Recipe, Split

DISTRIBUTIONS = ("myfm", "numpy")
RECIPES = [
    Recipe("MyFMRegressor, rank 10, defaults", {"rank": 10}, 100),
    Recipe("MyFMRegressor, rank 10, 300 iterations", {"rank": 10}, 300, slow=("ml-1m",)),
]


def load(split: Split, threads: int):
    from scipy.sparse import csr_matrix

    def features(part: Part) -> csr_matrix:
        columns = np.column_stack((part.user, split.users + part.item)).ravel()
        starts = np.arange(0, len(columns) + 1, 2)
        return csr_matrix((np.ones(len(columns)), columns, starts), (len(part.user), split.users + split.items))

    return features(split.train), split.train.rating, features(split.test), [split.users, split.items], threads


def fit(state, epochs: int, **options):
    from myfm import MyFMRegressor

    train, rating, _, groups, _ = state
    kept = max(1, epochs - 10) if epochs > 10 else 1  # the default, if there are enough
    return MyFMRegressor(random_seed=42, **options).fit(
        train, rating, n_iter=epochs, n_kept_samples=kept, group_shapes=groups
    )


def predict(state, model) -> np.ndarray:
    return model.predict(state[2], n_workers=state[4])
