"""New users by cross-entropy, against Newton's method with whole matrices in double precision."""

import numpy as np
import pytest
import torch

from cflightning.errors import DataError
from cflightning.solvers import logistic
from cflightning.solvers.interactions import side

NUM_ITEMS, DIM = 40, 6


def made_up(users=9, seed=0):
    rng = np.random.default_rng(seed)
    items = rng.normal(size=(NUM_ITEMS, DIM)).astype(np.float32) * 0.7
    items[0] = 0
    lists = [np.sort(rng.choice(np.arange(1, NUM_ITEMS), n, replace=False)) for n in rng.integers(1, 20, users)]
    return items, rng.normal(size=NUM_ITEMS).astype(np.float32), lists


def given(lists):
    user = torch.repeat_interleave(
        torch.arange(len(lists)), torch.tensor([len(rows) for rows in lists], dtype=torch.int64)
    )
    rows = torch.cat([torch.empty(0, dtype=torch.int32), *(torch.as_tensor(rows).int() for rows in lists)])
    return side(user.int(), rows, len(lists))


def slow(items, bias, rows, negatives, l2):
    """The vector of one user; every sum is written out."""
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
def test_it_is_the_minimum(negatives, l2, monkeypatch):
    items, bias, lists = made_up()
    monkeypatch.setattr(logistic, "NEWTON", 12)
    monkeypatch.setattr(logistic, "GRADIENTS", 12)
    found = logistic.fold_in(
        torch.from_numpy(items), torch.from_numpy(bias), given(lists), negatives=negatives, l2=l2
    ).numpy()
    for rows, vector in zip(lists, found, strict=True):
        np.testing.assert_allclose(vector, slow(items, bias, rows, negatives, l2), atol=2e-4)


def test_the_usual_number_of_steps_is_enough():
    items, bias, lists = made_up(30, seed=1)
    found = logistic.fold_in(torch.from_numpy(items), torch.from_numpy(bias), given(lists)).numpy()
    for rows, vector in zip(lists, found, strict=True):
        scores, exact = items @ vector + bias, items @ slow(items, bias, rows, 8.0, 0.005) + bias
        assert np.abs(scores - exact).max() < 0.05 * np.ptp(exact)


def test_blocks_of_users_change_nothing(monkeypatch):
    items, bias, lists = made_up()
    arguments = torch.from_numpy(items), torch.from_numpy(bias), given(lists)
    whole = logistic.fold_in(*arguments)
    monkeypatch.setattr(logistic, "SCORES", 2 * NUM_ITEMS)
    torch.testing.assert_close(logistic.fold_in(*arguments), whole, atol=1e-4, rtol=1e-3)


def test_the_scale_of_item_vectors_is_no_matter():
    items, bias, lists = made_up()
    table, lists = torch.from_numpy(items), given(lists)
    one = logistic.fold_in(table, torch.from_numpy(bias), lists)
    ten = logistic.fold_in(10 * table, torch.from_numpy(bias), lists)
    torch.testing.assert_close(ten * 10, one, atol=1e-5, rtol=1e-4)


def test_far_biases_are_no_trouble():
    items, bias, lists = made_up()
    found = logistic.fold_in(torch.from_numpy(items), 30 * torch.from_numpy(bias), given(lists))
    assert found.isfinite().all()


def test_who_has_no_items_has_no_direction():
    items, bias, lists = made_up()
    table = torch.from_numpy(items), torch.from_numpy(bias)
    found = logistic.fold_in(*table, given([[], lists[0], []]))
    assert not found[[0, 2]].any()
    torch.testing.assert_close(found[1], logistic.fold_in(*table, given(lists[:1]))[0])
    assert logistic.fold_in(*table, given([])).shape == (0, DIM)
    nothing = logistic.fold_in(torch.zeros(NUM_ITEMS, DIM), table[1], given(lists))
    assert not nothing.any()


def test_tables_that_do_not_fit():
    items, bias, lists = made_up()
    table = torch.from_numpy(items)
    with pytest.raises(DataError, match=rf"fold_in: item_bias must be \[{NUM_ITEMS}\], as item_vectors, got \[3\]"):
        logistic.fold_in(table, torch.zeros(3), given(lists))
    with pytest.raises(DataError, match=f"fold_in: items must be below {NUM_ITEMS}, got {NUM_ITEMS}"):
        logistic.fold_in(table, torch.from_numpy(bias), given([[NUM_ITEMS]]))
