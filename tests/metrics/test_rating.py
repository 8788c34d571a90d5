"""RMSE and MAE against scikit-learn's definition in numpy."""

import math

import numpy as np
import torch

from cflightning.metrics.rating import RatingErrors


def test_batches_add_up_to_one_pass():
    rng = np.random.default_rng(0)
    score, rating = rng.normal(3, 1, 100_003).astype(np.float32), rng.integers(1, 6, 100_003).astype(np.float32)
    errors = RatingErrors()
    for part in np.array_split(np.arange(len(score)), 13):
        errors.update(torch.from_numpy(score[part]), torch.from_numpy(rating[part]))
    got = errors.compute()
    off = score.astype(np.float64) - rating
    assert abs(float(got["rmse"]) - np.sqrt((off**2).mean())) < 1e-12
    assert abs(float(got["mae"]) - np.abs(off).mean()) < 1e-12


def test_no_rows_give_nan_and_reset_forgets():
    errors = RatingErrors()
    errors.update(torch.ones(2), torch.zeros(2))
    errors.reset()
    errors.update(torch.empty(0), torch.empty(0))
    assert all(math.isnan(float(value)) for value in errors.compute().values())
