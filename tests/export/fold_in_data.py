"""Tables, specifications and helpers of the tests of fold-in."""

import numpy as np
import onnxruntime as ort
import torch

from cflightning.data.ids import Ids
from cflightning.models.network import DotProductTables, RatingScale
from cflightning_export.fold_in.autoencoder import AutoencoderFoldIn
from cflightning_export.fold_in.implicit import ImplicitFoldIn

USERS, ITEMS, DIM = 200, 90, 12
SCALES = {
    "sigmoid": RatingScale((1.0, 5.0), True, 0.125),
    "other range": RatingScale((-10.0, 10.0), True, 0.125),
    "bare sigmoid": RatingScale((0.0, 1.0), True, 0.0),
    "identity": RatingScale((1.0, 5.0), False),
}


def make_tables(seed=0, scale=0.35):
    generator = torch.Generator().manual_seed(seed)

    def draw(ids, *width):
        table = scale * torch.randn(ids + 1, *width, generator=generator)
        table[0] = 0
        return table

    return DotProductTables(draw(USERS, DIM), draw(ITEMS, DIM), draw(USERS), draw(ITEMS), torch.tensor(0.4))


def make_svdpp_terms(seed=3):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"user_factors.vectors": (ITEMS + 1, DIM), "user_bias.vectors": (ITEMS + 1, 1),
              "user_factors.mean": (USERS + 1, DIM), "user_bias.mean": (USERS + 1, 1)}  # fmt: skip
    return {name: 0.1 * torch.randn(*shape, generator=generator) for name, shape in shapes.items()}


def item_ids(strings=False):
    values = [f"{n:03d}é" for n in range(ITEMS)] if strings else list(range(5, 5 + 3 * ITEMS, 3))
    return Ids(np.array(values, dtype=object if strings else np.int64))


def run(model, **feeds):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def fold(model, ids, item, rating, k=10, exclude=(), score=()):
    kind = ids.values.dtype
    return run(model, item=np.array(item, kind), rating=np.array(rating, np.float32), k=np.array([k]),
               exclude_item=np.array(exclude, kind), score_item=np.array(score, kind))  # fmt: skip


def scores_of(spec, x):
    logits = spec.vectors.astype(float) @ x[:-1] + x[-1] + spec.bias + spec.global_bias
    scale = spec.scale
    scores = scale.low + (scale.high - scale.low) / (1 + np.exp(-logits)) if scale.sigmoid else logits
    return logits, scores.clip(*scale.rating_range)


def cost(spec, x, index, rating):
    """The minimised sum at x."""
    low, high = spec.scale.rating_range
    logits, _ = scores_of(spec, x)
    width = spec.scale.high - spec.scale.low
    scores = spec.scale.low + width / (1 + np.exp(-logits)) if spec.scale.sigmoid else logits
    mean, weights = spec.prior.mean, spec.prior.weights
    if weights is not None:
        mean = mean + weights.vectors[index].astype(float).sum(0) @ weights.directions / (len(index) + 1) ** 0.5
    y = np.linalg.solve(spec.prior.root, x - mean)
    return ((scores[index] - rating) ** 2).sum() / (0.45 / 16 * (high - low) ** 2) + y @ y


def autoencoder_spec(mean_user=None, user_bias=0.0):
    tables, mean = make_tables(), np.zeros(DIM, np.float32) if mean_user is None else mean_user
    encoder = make_tables(seed=1).item_vectors.numpy()
    bias = tables.item_bias.numpy() + np.float32(0.4)
    return AutoencoderFoldIn(item_ids(), tables.item_vectors.numpy(), bias, encoder, user_bias, mean)


def implicit_spec(**more):
    tables = make_tables()
    settings = {"weight": 0.1, "l2": 0.02, "exponent": 0.8, "unit": 1.0, "length": None, "user_bias": 0.0}
    return ImplicitFoldIn(item_ids(), tables.item_vectors.numpy(), np.zeros(ITEMS + 1, np.float32), **(settings | more))
