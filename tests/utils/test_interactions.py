"""Interactions by user and by item, against a plain loop."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from cflightning.errors import DataError
from cflightning.utils.interactions import Interactions, make_interactions


def random_pairs(seed=0, users=9, items=7, n=40):
    rng = np.random.default_rng(seed)
    user, item = (torch.from_numpy(rng.integers(0, size, n).astype(np.int32)) for size in (users, items))
    return user, item, users, items, torch.from_numpy(rng.random(n, np.float32))


def expected_entries(own, other, values, size):
    """Entries of each row in the order given, without index 0; a pair that occurs twice is there twice."""
    found = [[] for _ in range(size)]
    for a, b, value in zip(own.tolist(), other.tolist(), values.tolist(), strict=True):
        if a and b:
            found[a].append((b, value))
    return found


def entries(matrix):
    values = [1.0] * len(matrix.indices) if matrix.values is None else matrix.values.tolist()
    pairs = list(zip(matrix.indices.tolist(), values, strict=True))
    return [pairs[a:b] for a, b in pairwise(matrix.offsets.tolist())]


@pytest.mark.parametrize("users", [9, 70_000])  # indices of up to 16 bits are sorted in another way
def test_pairs_are_grouped_by_user_and_by_item(users):
    user, item, _, items, values = random_pairs()
    interactions = make_interactions(user, item, users, items, values)
    assert entries(interactions.by_user) == expected_entries(user, item, values, users)
    assert entries(interactions.by_item) == expected_entries(item, user, values, items)
    assert interactions.by_user.indices.dtype == torch.int32
    assert make_interactions(user, item, users, items).by_item.values is None
    assert torch.equal(make_interactions(user, item, users, items).by_item.indices, interactions.by_item.indices)


def test_from_pairs_keeps_index_0():
    user, item, users, items, values = random_pairs()
    interactions = Interactions.from_pairs(user, item, users, items, values)
    assert int(interactions.by_user.counts[0]) == int((user == 0).sum()) > 0
    assert len(interactions.by_user.indices) == len(interactions.by_item.indices) == len(user)


def test_columns_out_of_range_are_rejected():
    user, item, users, items, values = random_pairs()
    with pytest.raises(DataError, match=r"columns of one length, got \[40\] and \[40\] and \[39\]"):
        make_interactions(user, item, users, items, values[1:])
    with pytest.raises(DataError, match="item must be at least 0 and below 3"):
        make_interactions(user, item, users, 3)
    user[3] = -1
    with pytest.raises(DataError, match="user must be at least 0 and below 9, got 1 others"):
        make_interactions(user, item, users, items)
