"""iALS against dense linear algebra in double precision, and against its objective."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from cflightning.errors import ConfigError, DataError, TrainingError
from cflightning.solvers.ials import AlternatingLeastSquares
from cflightning.utils.interactions import make_interactions

NUM_USERS, NUM_ITEMS = 80, 60
SETTINGS = {"weight": 0.2, "l2": 0.05, "exponent": 0.7}
WEIGHT_AND_L2 = {"weight": 0.1, "l2": 0.007}


def random_pairs(seed=0, users=NUM_USERS, items=NUM_ITEMS, n=700):
    rng = np.random.default_rng(seed)
    drawn = [(rng.random(n) ** 2 * (size - 4)).astype(np.int32) + 1 for size in (users, items)]
    user, item = np.unique(np.stack(drawn, 1), axis=0).astype(np.int32).T.copy()
    return torch.from_numpy(user), torch.from_numpy(item), torch.from_numpy(rng.random(len(user), np.float32) + 0.5)


def make_solver(user, item, confidence=None, users=NUM_USERS, items=NUM_ITEMS, **settings):
    return AlternatingLeastSquares(make_interactions(user, item, users, items, confidence), **settings)


def dense(user, item, confidence, users=NUM_USERS, items=NUM_ITEMS):
    """float64 [num_users, num_items]: confidences, 0 where there is no pair."""
    c = np.zeros((users, items))
    c[user, item] = confidence
    return c


def solved(c, q, weight, l2, exponent):
    """Solve one side exactly, one index after the other."""
    gram = weight * q.T @ q
    out = np.zeros((len(c), q.shape[1]))
    for row, own in enumerate(c):
        count = (own > 0).sum()
        if count:
            penalty = l2 * (count + weight * (len(q) - 1)) ** exponent
            out[row] = np.linalg.solve(q.T * own @ q + gram + penalty * np.eye(q.shape[1]), q.T @ own)
    return out


def objective(c, p, q, weight, l2, exponent):
    """The objective from its definition."""
    x = p @ q.T
    total = (c * (1 - x) ** 2).sum() + weight * (x**2).sum()
    for table, counts, others in ((p, (c > 0).sum(1), len(q) - 1), (q, (c > 0).sum(0), len(p) - 1)):
        total += l2 * ((counts + weight * others) ** exponent * (table**2).sum(1)).sum()
    return total


@pytest.mark.parametrize("dim", [1, 5, 16, 30])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_sweep_solves_both_sides(dim, weighted, implementation):
    user, item, confidence = random_pairs()
    solver = make_solver(user, item, confidence if weighted else None, **SETTINGS)
    users, items = solver.start(dim)
    c = dense(user, item, confidence if weighted else 1)
    p = solved(c, items.double().numpy(), **SETTINGS)
    q = solved(c.T, p, **SETTINGS)
    solver.sweep(users, items)
    np.testing.assert_allclose(users, p, atol=2e-5 * np.abs(p).max())
    np.testing.assert_allclose(items, q, atol=2e-5 * np.abs(q).max())
    assert solver.loss(users, items) == pytest.approx(objective(c, p, q, **SETTINGS), rel=1e-5)


@pytest.mark.parametrize("dim", [32, 40, 64])
def test_blocks_reach_the_same_minimum(dim, implementation):
    """Each pass over the blocks lowers the loss, and many passes reach the minimum of a single block."""
    user, item, confidence = random_pairs()
    solver = make_solver(user, item, confidence, block=16, **SETTINGS)
    users, items = solver.start(dim)
    items *= 20
    c = dense(user, item, confidence)
    losses = [solver.loss(users, items)]
    for _ in range(40):
        solver.solve(solver.users, users, items)
        losses.append(solver.loss(users, items))
    assert all(b <= a * (1 + 1e-6) for a, b in pairwise(losses))
    p = solved(c, items.double().numpy(), **SETTINGS)
    np.testing.assert_allclose(users, p, atol=1e-3 * np.abs(p).max())


def test_a_step_on_a_block_is_a_newton_step(implementation):
    user, item, confidence = random_pairs()
    c = dense(user, item, confidence)
    solver = make_solver(user, item, confidence, block=16, **SETTINGS)
    users, items = solver.start(40)  # blocks of 16, the last one half padding
    users *= 30
    items *= 30
    p, q = users.double().numpy().copy(), items.double().numpy()
    for row in np.flatnonzero((c > 0).any(1)):
        count = (c[row] > 0).sum()
        bend = q.T * c[row] @ q + 0.2 * q.T @ q + 0.05 * (count + 0.2 * (NUM_ITEMS - 1)) ** 0.7 * np.eye(40)
        for left in (0, 16, 32):
            b = slice(left, left + 16)
            p[row, b] -= np.linalg.solve(bend[b, b], (bend @ p[row] - q.T @ c[row])[b])
    solver.solve(solver.users, users, items)
    np.testing.assert_allclose(users, p, atol=3e-5 * np.abs(p).max())


def test_indices_without_interactions_keep_zero_vectors_and_index_0_is_left_out(implementation):
    user, item, _ = random_pairs()
    zeros, some = torch.zeros(3, dtype=torch.int32), torch.tensor([0, 1, 2], dtype=torch.int32)
    plain = make_solver(user, item, **WEIGHT_AND_L2)
    more = make_solver(torch.cat([user, zeros, some]), torch.cat([item, some, zeros]), **WEIGHT_AND_L2)
    tables, others = plain.start(8), more.start(8)
    for solver, pair in ((plain, tables), (more, others)):
        solver.sweep(*pair)
    for table, other, column in zip(tables, others, (user, item), strict=True):
        assert torch.equal(table, other)
        empty = torch.bincount(column, minlength=len(table)) == 0
        assert empty[0]
        assert empty[-1]
        assert not table[empty].any()


@pytest.mark.parametrize("dim", [16, 48])
def test_the_result_does_not_depend_on_the_number_of_threads(dim):
    user, item, confidence = random_pairs(1, 500, 300, 9000)
    found = []
    for threads in (1, 2, 4):
        solver = make_solver(user, item, confidence, 500, 300, block=16, threads=threads, **WEIGHT_AND_L2)
        tables = solver.start(dim)
        for _ in range(3):
            solver.sweep(*tables)
        found.append(torch.cat(tables))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_sweeps_lower_the_loss_and_the_start_depends_on_the_seed():
    user, item, _ = random_pairs()
    solver = make_solver(user, item, **WEIGHT_AND_L2)
    tables = solver.start(8, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(tables, solver.start(8, seed=1), strict=True))
    assert not torch.equal(tables[1], solver.start(8, seed=2)[1])
    losses = []
    for _ in range(6):
        solver.sweep(*tables)
        losses.append(solver.loss(*tables))
    assert losses == sorted(losses, reverse=True)


@pytest.mark.parametrize("dim", [8, 40])
def test_fold_in_gives_new_users_the_vectors_of_a_sweep(dim, implementation):
    user, item, _ = random_pairs()
    solver = make_solver(user, item, block=64, **SETTINGS)
    users, items = solver.start(dim)
    solver.sweep(users, items)
    fixed = items.clone()
    solver.sweep(users, items)
    lists = [item[user == row] for row in range(NUM_USERS)]
    solver = make_solver(user, item, block=16, **SETTINGS)
    torch.testing.assert_close(solver.fold_in(fixed, lists), users, atol=2e-5, rtol=1e-4)
    some = solver.fold_in(fixed, [lists[1].long(), torch.tensor([0]), torch.tensor([], dtype=torch.int64)])
    torch.testing.assert_close(some[0], users[1], atol=2e-5, rtol=1e-4)
    assert not some[1:].any()
    assert solver.fold_in(fixed, []).shape == (0, dim)
    with pytest.raises(DataError, match=f"item must be at least 0 and below {NUM_ITEMS}, got 1 others"):
        solver.fold_in(fixed, [torch.tensor([NUM_ITEMS])])


def test_long_rows_are_gathered_in_parts(implementation):
    rng = np.random.default_rng(0)
    users, items = 500, 4
    user, item = (torch.from_numpy(a.astype(np.int32)) for a in np.nonzero(rng.random((users, items)) < 0.9))
    user, item = user[user * item > 0], item[user * item > 0]
    solver = make_solver(user, item, None, users, items, **SETTINGS)
    tables = solver.start(3)
    solver.sweep(*tables)
    expected = solved(dense(user, item, 1, users, items).T, tables[0].double().numpy(), **SETTINGS)
    np.testing.assert_allclose(tables[1], expected, atol=1e-4 * np.abs(expected).max())


def test_empty_columns(implementation):
    empty = torch.empty(0, dtype=torch.int32)
    solver = make_solver(empty, empty, None, 3, 4, **WEIGHT_AND_L2)
    tables = solver.start(2)
    solver.sweep(*tables)
    assert not torch.cat(tables).any()
    assert solver.loss(*tables) == 0


def test_arguments_out_of_range_are_rejected():
    user, item, confidence = random_pairs()
    for options, message in (
        ({"l2": 0.0}, "l2 must be above 0, got 0.0"),
        ({"weight": -1.0}, "weight must be at least 0, got -1.0"),
        ({"block": 0}, "block must be above 0, got 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            make_solver(user, item, **(WEIGHT_AND_L2 | options))
    confidence[3], confidence[4] = -1, np.nan
    with pytest.raises(DataError, match="confidences must be at least 0, got 2 others"):
        make_solver(user, item, confidence, **WEIGHT_AND_L2)
    with pytest.raises(DataError, match="columns of one length"):
        make_solver(user, item, confidence[5:], **WEIGHT_AND_L2)
    solver = make_solver(user, item, **WEIGHT_AND_L2)
    users, items = solver.start(4)
    for pair in ((users[1:], items), (users, items[:, 1:]), (users.double(), items)):
        with pytest.raises(DataError, match="same dim for both"):
            solver.sweep(*pair)
    items[1] = np.inf
    with pytest.raises(TrainingError, match="must be finite"):
        solver.sweep(users, items)
