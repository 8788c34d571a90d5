"""Smoothing against the dense formula, and its gradient against finite differences."""

import numpy as np
import pytest
import torch

from cflightning.errors import DataError
from cflightning.solvers.lightgcn import Smoothing, smooth_items
from cflightning.utils.interactions import make_interactions

USERS, ITEMS, DIM = 7, 6, 3
USER = torch.tensor([1, 1, 1, 2, 3, 3, 4, 6, 0, 2])
ITEM = torch.tensor([1, 2, 5, 1, 1, 2, 5, 2, 1, 0])  # two pairs with index 0; user 5, items 3 and 4 have none
INTERACTIONS = make_interactions(USER, ITEM, USERS, ITEMS)


def smooth_tables(users, items, interactions=INTERACTIONS, share=1.0):
    with torch.no_grad():
        return Smoothing(interactions, share)(users, items)


def dense(users, items, share):
    met = np.zeros((USERS, ITEMS))
    for u, i in zip(USER.tolist(), ITEM.tolist(), strict=True):
        if u and i:
            met[u, i] = 1
    left, right = (np.maximum(met.sum(axis), 1) ** -0.5 for axis in (1, 0))
    adjacency = share * left[:, None] * met * right
    return users + adjacency @ items, items + adjacency.T @ users


def tables(dtype=torch.float32, dim=DIM):
    generator = torch.Generator().manual_seed(0)
    users, items = (torch.randn(n, dim, generator=generator, dtype=dtype) for n in (USERS, ITEMS))
    users[0], items[0] = 0, 0
    return users, items


@pytest.mark.parametrize("share", [1.0, 0.3, 0.0])
def test_tables_are_those_of_the_dense_formula(share):
    users, items = tables()
    before = users.clone(), items.clone()
    expected = dense(users.numpy(), items.numpy(), share)
    found = smooth_tables(users, items, share=share)
    for got, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
        assert not got[0].any()
    assert torch.equal(found[0][5], users[5]) and torch.equal(found[1][3:5], items[3:5])
    assert torch.equal(users, before[0]) and torch.equal(items, before[1])


def test_gradients_equal_finite_differences():
    smoothing = Smoothing(INTERACTIONS, 0.7).double()
    users, items = (table.requires_grad_() for table in tables(torch.float64))
    assert torch.autograd.gradcheck(smoothing, (users, items))
    assert torch.autograd.gradgradcheck(smoothing, (users, items))


def test_only_one_table_may_be_trained():
    smoothing = Smoothing(INTERACTIONS)
    users, items = tables()
    p, q = smoothing(users.requires_grad_(), items)
    (p.sum() + 2 * q.sum()).backward()
    one, _ = dense(np.ones((USERS, DIM)), 2 * np.ones((ITEMS, DIM)), 1)
    np.testing.assert_allclose(users.grad, one, rtol=1e-5)
    assert items.grad is None


def test_checkpoints_hold_no_interactions():
    assert not Smoothing(INTERACTIONS).state_dict()


def test_without_interactions_tables_stay_as_they_are():
    nothing = torch.empty(0, dtype=torch.int64)
    users, items = tables()
    p, q = smooth_tables(users, items, make_interactions(nothing, nothing, USERS, ITEMS))
    assert torch.equal(p, users) and torch.equal(q, items)


@pytest.mark.parametrize("dim", [DIM, 64])
@pytest.mark.parametrize("share", [0.7, 0.0])
def test_items_are_smoothed_alike_after_training(share, dim, implementation):
    users, items = tables(dim=dim)
    found = smooth_items(users, items, INTERACTIONS, share, threads=2)
    np.testing.assert_allclose(found, dense(users.numpy(), items.numpy(), share)[1], rtol=1e-5, atol=1e-6)
    assert torch.equal(found[3:5], items[3:5])


def test_vectors_of_other_sizes_are_refused():
    users, items = tables()
    for wrong in ((users, items[1:]), (users[1:], items), (users[:, 1:], items)):
        with pytest.raises(DataError, match=r"smooth_items: vectors must be \[7, dim\] and \[6, dim\], got"):
            smooth_items(*wrong, INTERACTIONS, 1.0)
