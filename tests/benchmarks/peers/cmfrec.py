"""cmfrec: biased matrix factorisation by alternating least squares."""

import numpy as np
from peers.common import Recipe, Split

DISTRIBUTIONS = ("cmfrec", "numpy")
RECIPES = [
    Recipe("CMF, defaults (ALS, k 40, λ 10)", epochs=10),
    Recipe("CMF, λ .1 scaled by counts", {"lambda_": 0.1, "scale_lam": True}, 10, data=("u1",)),
    Recipe("CMF, k 64, λ .08 scaled by counts", {"k": 64, "lambda_": 0.08, "scale_lam": True}, 15, data=("ml-1m",)),
    Recipe("CMF, k 100, λ .1 scaled by counts", {"k": 100, "lambda_": 0.1, "scale_lam": True}, 15, data=("small",)),
    Recipe(
        "CMF, k 64, λ .3 scaled by counts",
        {"k": 64, "lambda_": 0.3, "scale_lam": True},
        15,
        data=("movietweetings",),
    ),
]


def load(split: Split, threads: int):
    import pandas as pd

    train = pd.DataFrame({"UserId": split.train.user, "ItemId": split.train.item, "Rating": split.train.rating})
    return train, split.test, threads


def fit(state, epochs: int, **options):
    from cmfrec import CMF

    train, _, threads = state
    return CMF(niter=epochs, nthreads=threads, **options).fit(train)


def predict(state, model) -> np.ndarray:
    train, test, _ = state
    predicted = model.predict(test.user, test.item)
    return np.where(np.isnan(predicted), train["Rating"].mean(), predicted)  # NaN for items without training rows
