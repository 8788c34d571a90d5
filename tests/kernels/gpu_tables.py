"""Synthetic columns and tables for the tests of the fused GPU step."""

import numpy as np
import torch

from cflightning.kernels.adagrad import GPU_BLOCK, make_state_table
from cflightning.models.penalty import Penalty

USERS, ITEMS = 60, 90
CONSTANTS = (2 * 1.25**2, 0.1, 0.25, 1e-3, 0.007)  # gradient factor, rates of factors, biases and global bias, eps


def make(n, dim, device="cpu", seed=0):
    """Columns and order; tables and global bias. Few rows, so that they come twice within a handful."""
    rng = np.random.default_rng(seed)
    user, item = (rng.integers(1, rows, n).astype(np.int32) for rows in (USERS, ITEMS))
    order = rng.permutation(-(-n // GPU_BLOCK)).astype(np.int32)
    columns = user, item, rng.random(n).astype(np.float32), order
    tables = [0.3 * rng.standard_normal((rows, dim)).astype(np.float32) for rows in (USERS, ITEMS)]
    for rows, ids in ((USERS, user), (ITEMS, item)):
        bias = 0.1 * rng.standard_normal(rows).astype(np.float32)
        tables.append(make_state_table(np.bincount(ids, minlength=rows), bias, Penalty(0.008, 0.5)))
    tables.append(np.array([0.3], np.float32))
    return tuple([torch.from_numpy(array).to(device) for array in part] for part in (columns, tables))
