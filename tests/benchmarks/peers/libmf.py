"""LIBMF by its Python package: matrix factorisation without biases, parallel stochastic gradient descent.

The package's `fit` reads its array in C order and `predict` in Fortran order: with a C-ordered array, `predict` scores
the wrong pairs (RMSE 1.37 instead of .85). Here `predict` gets a Fortran-ordered array.
"""

import numpy as np
from peers.common import Recipe, Split

DISTRIBUTIONS = ("libmf", "numpy")
BAR = "k 64, λ .05, 40 iterations"


def l2(k: int, weight: float, **options) -> dict:
    return {"k": k, "lambda_p1": 0, "lambda_q1": 0, "lambda_p2": weight, "lambda_q2": weight, **options}


RECIPES = [
    Recipe("defaults (k 8)", epochs=20),
    Recipe(BAR, l2(64, 0.05), 40, data=("u1", "ml-1m")),
    Recipe(BAR + ", η .05", l2(64, 0.05, eta=0.05), 40, data=("u1", "ml-1m")),
    Recipe("k 64, λ .1, 40 iterations, η .05", l2(64, 0.1, eta=0.05), 40, data=("small",)),
    Recipe("k 64, λ .1, 80 iterations, η .02", l2(64, 0.1, eta=0.02), 80, data=("movietweetings",)),
]


def load(split: Split, threads: int):
    table = np.column_stack(split.train).astype(np.float32)
    pairs = np.asfortranarray(np.column_stack(split.test[:2]).astype(np.float32))
    return table, pairs, threads


def fit(state, epochs: int, **options):
    from libmf.mf import MF

    table, _, threads = state
    model = MF(nr_iters=epochs, nr_threads=threads, quiet=True, **options)
    model.fit(table)
    return model


def predict(state, model) -> np.ndarray:
    return model.predict(state[1])
