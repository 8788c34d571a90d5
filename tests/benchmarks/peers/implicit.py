"""implicit: alternating least squares on implicit feedback; it predicts interactions, not ratings."""

from peers.common import Recipe, Split

DISTRIBUTIONS = ("implicit", "numpy")
RECIPES = [
    Recipe("ALS, defaults (100 factors)", epochs=15, warning="implicit feedback: predicts no ratings"),
]


def load(split: Split, threads: int):
    from implicit.als import AlternatingLeastSquares
    from scipy.sparse import csr_matrix
    from threadpoolctl import threadpool_limits

    train = split.train
    table = csr_matrix((train.rating, (train.user, train.item)), shape=(split.users, split.items))
    threadpool_limits(1, "blas")  # recommended by the library, whose threads call BLAS
    return table, threads, AlternatingLeastSquares


def fit(state, epochs: int, **options):
    table, threads, model = state
    model = model(iterations=epochs, num_threads=threads, random_state=0, **options)
    model.fit(table, show_progress=False)
    return model


def predict(state, model) -> None:
    return None
