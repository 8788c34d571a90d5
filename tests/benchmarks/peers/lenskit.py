"""LensKit: biased matrix factorisation by alternating least squares."""

import numpy as np
from peers.common import Recipe, Split

DISTRIBUTIONS = ("lenskit", "torch", "numpy")
RECIPES = [
    Recipe("BiasedMF (ALS), defaults", epochs=10),
    Recipe("BiasedMF (ALS), λ .13", {"regularization": 0.13}, 10, data=("u1",)),
    Recipe("BiasedMF (ALS), λ .07", {"regularization": 0.07}, 10, data=("ml-1m",)),
    Recipe("BiasedMF (ALS), 100 factors", {"embedding_size": 100}, 10, data=("small",)),
    Recipe("BiasedMF (ALS), λ .5", {"regularization": 0.5}, 10, data=("movietweetings",)),
]


def load(split: Split, threads: int):
    import pandas as pd
    from lenskit.data import from_interactions_df

    table = pd.DataFrame({"user_id": split.train.user, "item_id": split.train.item, "rating": split.train.rating})
    fit((from_interactions_df(table[:1000]),), 1)  # compiles and starts what the first fit needs
    return from_interactions_df(table), split.test


def fit(state, epochs: int, **options):
    from lenskit.als import BiasedMFScorer
    from lenskit.training import TrainingOptions

    model = BiasedMFScorer(epochs=epochs, **options)
    model.train(state[0], TrainingOptions(rng=42))
    return model


def predict(state, model) -> np.ndarray:
    """Predict all rows with the model's parameters; unknown ids add nothing, as in its own scores."""
    test, bias = state[1], model.bias
    user = model.users.numbers(test.user, missing="negative")
    item = model.items.numbers(test.item, missing="negative")
    dot = np.einsum("ij,ij->i", model.user_embeddings[user], model.item_embeddings[item])
    predicted = bias.global_bias + np.where(user < 0, 0, bias.user_biases[user])
    predicted = predicted + np.where(item < 0, 0, bias.item_biases[item])
    return predicted + np.where((user < 0) | (item < 0), 0, dot)
