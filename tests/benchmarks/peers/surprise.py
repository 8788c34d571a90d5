"""Surprise: biased matrix factorisation by stochastic gradient descent, on one thread (its only mode)."""

import numpy as np
from peers.common import Recipe, Split

DISTRIBUTIONS = ("scikit-surprise", "numpy")
RECIPES = [
    Recipe("SVD, defaults", epochs=20),
    Recipe("SVD, 100 factors, reg .1, 100 epochs", {"n_factors": 100, "reg_all": 0.1}, 100, data=("u1",)),
    Recipe("SVD, 100 factors, reg .06, 60 epochs", {"n_factors": 100, "reg_all": 0.06}, 60, data=("ml-1m",)),
    Recipe("SVD, 100 factors, reg .1, 200 epochs", {"n_factors": 100, "reg_all": 0.1}, 200, data=("small",)),
    Recipe("SVD, 100 factors, reg .2, 60 epochs", {"n_factors": 100, "reg_all": 0.2}, 60, data=("movietweetings",)),
]


def load(split: Split, threads: int):
    from surprise import Reader
    from surprise.dataset import Dataset

    rows = zip(*(column.tolist() for column in split.train), strict=True)
    data = Dataset(Reader(rating_scale=split.scale))
    return data.construct_trainset([(user, item, rating, None) for user, item, rating in rows]), split.test


def fit(state, epochs: int, **options):
    from surprise import SVD

    return SVD(n_epochs=epochs, random_state=0, **options).fit(state[0])


def predict(state, model) -> np.ndarray:
    test = state[1]
    pairs = zip(test.user.tolist(), test.item.tolist(), strict=True)
    return np.array([model.predict(user, item).est for user, item in pairs])
