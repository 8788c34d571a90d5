"""Pairs grouped by row, against a plain loop."""

import numpy as np
import pytest
import torch

from cflightning.errors import DataError
from cflightning.solvers.interactions import interactions


def made_up(seed=0, users=9, items=7, n=40):
    rng = np.random.default_rng(seed)
    user, item = (torch.from_numpy(rng.integers(0, size, n).astype(np.int32)) for size in (users, items))
    return user, item, users, items, torch.from_numpy(rng.random(n, np.float32))


def listed(own, other, values, size):
    """Pairs of each row in the order given, those with row 0 left out; twice is twice."""
    found = [[] for _ in range(size)]
    for a, b, value in zip(own.tolist(), other.tolist(), values.tolist(), strict=True):
        if a and b:
            found[a].append((b, value))
    return found


def unfolded(side):
    values = [1.0] * len(side.rows) if side.values is None else side.values.tolist()
    pairs = list(zip(side.rows.tolist(), values, strict=True))
    return [pairs[a:b] for a, b in zip(side.offsets[:-1].tolist(), side.offsets[1:].tolist(), strict=True)]


@pytest.mark.parametrize("users", [9, 70_000])  # rows of 16 bits and of more are sorted apart
def test_pairs_are_grouped_from_both_sides(users):
    user, item, _, items, values = made_up()
    sides = interactions(user, item, users, items, values)
    assert unfolded(sides.users) == listed(user, item, values, users)
    assert unfolded(sides.items) == listed(item, user, values, items)
    assert sides.users.rows.dtype == torch.int32
    assert interactions(user, item, users, items).items.values is None
    assert torch.equal(interactions(user, item, users, items).items.rows, sides.items.rows)


def test_some_rows_of_a_side():
    side = interactions(*made_up()).users
    rows = unfolded(side)
    assert unfolded(side.part(2, 5)) == rows[2:5]
    assert unfolded(side.part(7, 99)) == rows[7:]
    assert unfolded(side.take(torch.tensor([3, 1, 3, 0], dtype=torch.int32))) == [rows[3], rows[1], rows[3], rows[0]]
    assert unfolded(side.take(torch.tensor([], dtype=torch.int64))) == []
    column = torch.arange(7.0)
    expected = [sum(float(column[b]) for b, _ in row) for row in rows]
    assert side.sums(column).tolist() == pytest.approx(expected)


def test_what_cannot_be_is_refused():
    user, item, users, items, values = made_up()
    with pytest.raises(DataError, match=r"columns of one length, got \[40\] and \[40\] and \[39\]"):
        interactions(user, item, users, items, values[1:])
    with pytest.raises(DataError, match="item must be at least 0 and below 3"):
        interactions(user, item, users, 3)
    user[3] = -1
    with pytest.raises(DataError, match="user must be at least 0 and below 9, got 1 others"):
        interactions(user, item, users, items)
