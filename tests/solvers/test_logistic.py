"""Fold-in by the logistic loss, against Newton's method with exact steps in double precision."""

import numpy as np
import pytest
import torch

from cflightning.errors import DataError
from cflightning.solvers.logistic import NewtonLimits, fold_in
from cflightning.utils.csr import csr_from_pairs

NUM_ITEMS, DIM = 40, 6


def random_users(users=9, seed=0):
    rng = np.random.default_rng(seed)
    items = rng.normal(size=(NUM_ITEMS, DIM)).astype(np.float32) * 0.7
    items[0] = 0
    lists = [np.sort(rng.choice(np.arange(1, NUM_ITEMS), n, replace=False)) for n in rng.integers(1, 20, users)]
    return items, rng.normal(size=NUM_ITEMS).astype(np.float32), lists


def user_items(lists):
    user = torch.repeat_interleave(
        torch.arange(len(lists)), torch.tensor([len(rows) for rows in lists], dtype=torch.int64)
    )
    items = torch.cat([torch.empty(0, dtype=torch.int32), *(torch.as_tensor(rows).int() for rows in lists)])
    return csr_from_pairs(user.int(), items, len(lists), NUM_ITEMS)


def reference(items, bias, rows, negatives, l2):
    """The vector of one user, every sum from its definition."""
    items, bias = items[1:].astype(np.float64), bias[1:].astype(np.float64)
    length = np.linalg.norm(items, axis=1).mean()
    z = np.column_stack([items / length, np.ones(len(items))])
    chosen = np.isin(np.arange(1, NUM_ITEMS), rows) / len(rows)
    penalty = np.diag([l2 * (1 + negatives)] * DIM + [0.0])
    y = np.zeros(DIM + 1)
    for _ in range(60):
        chance = 1 / (1 + np.exp(-(z @ y + bias)))
        share = negatives / len(items)
        slope = z.T @ (share * chance - chosen * (1 - chance)) + penalty @ y
        bend = (z * ((share + chosen) * chance * (1 - chance))[:, None]).T @ z + penalty
        y -= np.linalg.solve(bend, slope)
    assert np.abs(slope).max() < 1e-9
    return y[:-1] / length


@pytest.mark.parametrize(("negatives", "l2"), [(8.0, 0.005), (3.0, 0.05), (20.0, 0.001)])
def test_vectors_are_the_minimum(negatives, l2):
    items, bias, lists = random_users()
    limits = NewtonLimits(steps=12, conjugate_gradients=12)
    found = fold_in(
        torch.from_numpy(items), torch.from_numpy(bias), user_items(lists), negatives=negatives, l2=l2, limits=limits
    ).numpy()
    for rows, vector in zip(lists, found, strict=True):
        np.testing.assert_allclose(vector, reference(items, bias, rows, negatives, l2), atol=2e-4)


def test_the_default_number_of_steps_is_enough():
    items, bias, lists = random_users(30, seed=1)
    found = fold_in(torch.from_numpy(items), torch.from_numpy(bias), user_items(lists)).numpy()
    for rows, vector in zip(lists, found, strict=True):
        scores, exact = items @ vector + bias, items @ reference(items, bias, rows, 8.0, 0.005) + bias
        assert np.abs(scores - exact).max() < 0.05 * np.ptp(exact)


def test_blocks_of_users_do_not_change_the_vectors():
    items, bias, lists = random_users()
    arguments = torch.from_numpy(items), torch.from_numpy(bias), user_items(lists)
    whole = fold_in(*arguments)
    torch.testing.assert_close(
        fold_in(*arguments, limits=NewtonLimits(scores=2 * NUM_ITEMS)), whole, atol=1e-4, rtol=1e-3
    )


def test_vectors_scale_inversely_with_the_item_vectors():
    items, bias, lists = random_users()
    table, lists = torch.from_numpy(items), user_items(lists)
    one = fold_in(table, torch.from_numpy(bias), lists)
    ten = fold_in(10 * table, torch.from_numpy(bias), lists)
    torch.testing.assert_close(ten * 10, one, atol=1e-5, rtol=1e-4)


def test_large_biases_give_finite_vectors():
    items, bias, lists = random_users()
    found = fold_in(torch.from_numpy(items), 30 * torch.from_numpy(bias), user_items(lists))
    assert found.isfinite().all()


def test_users_without_items_have_zero_vectors():
    items, bias, lists = random_users()
    table = torch.from_numpy(items), torch.from_numpy(bias)
    found = fold_in(*table, user_items([[], lists[0], []]))
    assert not found[[0, 2]].any()
    torch.testing.assert_close(found[1], fold_in(*table, user_items(lists[:1]))[0])
    assert fold_in(*table, user_items([])).shape == (0, DIM)
    nothing = fold_in(torch.zeros(NUM_ITEMS, DIM), table[1], user_items(lists))
    assert not nothing.any()


def test_tables_of_other_sizes_are_rejected():
    items, bias, lists = random_users()
    table = torch.from_numpy(items)
    with pytest.raises(DataError, match=rf"fold_in: item_bias must be \[{NUM_ITEMS}\], as item_vectors, got \[3\]"):
        fold_in(table, torch.zeros(3), user_items(lists))
    with pytest.raises(DataError, match=f"fold_in: items must be below {NUM_ITEMS}, got {NUM_ITEMS}"):
        fold_in(table, torch.from_numpy(bias), user_items([[NUM_ITEMS]]))
