"""The degree-scaled SVD against a dense one."""

import numpy as np
import pytest
import torch

from cflightning.errors import ConfigError, DataError
from cflightning.solvers import sparse, svd
from cflightning.solvers.interactions import interactions
from cflightning.solvers.svd import DegreeScaledSVD, degree_scaled_svd, fold_in
from cflightning.utils.thread_pool import Threads


def made_up(seed=0, users=70, items=50, n=600):
    """Pairs, none twice, of users and items of uneven popularity."""
    rng = np.random.default_rng(seed)
    drawn = [(rng.random(n) ** 2 * (size - 1)).astype(np.int32) + 1 for size in (users, items)]
    user, item = np.unique(np.stack(drawn, 1), axis=0).astype(np.int32).T.copy()
    order = rng.permutation(len(user))
    return torch.from_numpy(user[order]), torch.from_numpy(item[order]), users + 3, items + 2


def dense(user, item, num_users, num_items, user_power, item_power):
    """X, the degrees and M, in double precision."""
    x = np.zeros((num_users, num_items))
    np.add.at(x, (user.numpy(), item.numpy()), 1)
    degrees = [np.maximum(x.sum(axis), 1) for axis in (1, 0)]
    return x, degrees, degrees[0][:, None] ** -user_power * x * degrees[1] ** -item_power


@pytest.mark.parametrize("dim", [1, 8, 20])
@pytest.mark.parametrize("powers", [(0.3, 0.5, 0.4, 0.0), (0.5, 0.5, 0.5, 1.0), (0.0, 0.0, 0.0, 0.25)])
def test_scores_are_those_of_a_dense_svd(dim, powers):
    pairs = made_up()
    x, degrees, m = dense(*pairs, *powers[:2])
    _, singular, v = np.linalg.svd(m)
    v, shares = v[:dim].T, (singular[:dim] / singular[0]) ** powers[3]
    expected = x * degrees[1] ** -powers[1] @ v * shares @ (degrees[1][:, None] ** powers[2] * v).T
    user_power, item_power, score_power, value_power = powers
    tables = degree_scaled_svd(
        *pairs,
        dim,
        user_power=user_power,
        item_power=item_power,
        score_power=score_power,
        value_power=value_power,
        iterations=4,
    )
    assert [table.dtype for table in tables] == [torch.float32] * 2
    assert tables[0].shape == (pairs[2], dim)
    assert tables[1].shape == (pairs[3], dim)
    np.testing.assert_allclose((tables[0] @ tables[1].T).numpy(), expected, atol=2e-4 * np.abs(expected).max())


def test_directions_are_orthonormal_and_fall():
    pairs = made_up(3, 900, 700, 9000)
    solver = DegreeScaledSVD(interactions(*pairs), 8)
    shares = [solver.sweep() for _ in range(20)]
    assert shares[0] < shares[1] < shares[2] < shares[-1] + 1e-9
    m = dense(*pairs, 0.3, 0.5)[2]
    squares = np.linalg.svd(m)[1] ** 2
    assert shares[-1] == pytest.approx(squares[:8].sum() / squares.sum(), rel=1e-5)
    np.testing.assert_allclose(solver.values[:8], squares[:8], rtol=1e-5)
    v = solver.basis
    torch.testing.assert_close(v.T @ v, torch.eye(v.shape[1]), atol=1e-5, rtol=0)


def test_fewer_items_than_directions_are_all_directions_and_zeros():
    user, item = torch.tensor([1, 1, 2, 3, 3, 3]), torch.tensor([1, 2, 2, 1, 2, 3])
    users, items = degree_scaled_svd(user.int(), item.int(), 4, 4, 10, item_power=0.5, score_power=0.5, iterations=3)
    x = torch.zeros(4, 4).index_put((user, item), torch.tensor(1.0))
    torch.testing.assert_close(users @ items.T, x, atol=1e-5, rtol=0)  # V V^T is the identity
    assert not users[:, 3:].any()
    assert not items[:, 3:].any()


def test_unknown_rows_and_those_without_pairs_stay_zero():
    user, item, num_users, num_items = made_up()
    expected = degree_scaled_svd(user, item, num_users, num_items, 5)
    zeros = torch.zeros(4, dtype=torch.int32)
    some = torch.tensor([0, 1, 2, 3], dtype=torch.int32)
    more = torch.cat([user, zeros, some]), torch.cat([item, some, zeros])
    found = degree_scaled_svd(*more, num_users, num_items, 5)
    for table, other, column in zip(found, expected, (user, item), strict=True):
        assert torch.equal(table, other)
        empty = torch.bincount(column, minlength=len(table)) == 0
        assert empty[0]
        assert not table[empty].any()


def test_any_number_of_threads_gives_the_same_bits_and_a_seed_decides():
    pairs = made_up(1, 900, 700, 9000)
    alone, helped, again, other = (
        degree_scaled_svd(*pairs, 100, seed=seed, threads=threads) for seed, threads in ((0, 1), (0, 2), (0, 4), (1, 1))
    )
    for table, two, four, seeded in zip(alone, helped, again, other, strict=True):
        assert torch.equal(table, two)
        assert torch.equal(table, four)
        assert not torch.equal(table, seeded)


def test_it_goes_on_from_a_saved_basis():
    whole, first, second = (DegreeScaledSVD(interactions(*made_up()), 6) for _ in range(3))
    whole.sweep()
    whole.sweep()
    first.sweep()
    second.basis, second.values = first.basis.clone(), first.values.clone()
    second.sweep()
    assert all(torch.equal(a, b) for a, b in zip(whole.finish(), second.finish(), strict=True))


def test_a_new_user_is_the_sum_of_its_items():
    pairs = made_up()
    solver = DegreeScaledSVD(interactions(*pairs), 6)
    solver.sweep()
    users, _ = solver.finish()
    rows = pairs[1][pairs[0] == 5].long()
    torch.testing.assert_close((solver.item_scale[rows, None] * solver.basis[rows, :6]).sum(0), users[5])


@pytest.mark.parametrize("powers", [(0.5, 0.4), (0.2, 0.0)], ids=str)
def test_a_new_user_needs_the_finished_item_vectors_alone(powers):
    user, item, num_users, num_items = made_up()
    sides = interactions(user, item, num_users, num_items)
    solver = DegreeScaledSVD(sides, 8, item_power=powers[0], score_power=powers[1])
    solver.sweep()
    users, items = solver.finish()
    found = fold_in(items, sides.users, sides.items.counts, item_power=powers[0], score_power=powers[1])
    torch.testing.assert_close(found, users, atol=1e-5, rtol=1e-4)
    nobody = fold_in(items, sides.users.part(0, 0), sides.items.counts)
    assert nobody.shape == (0, 8)


def test_nothing_at_all():
    empty = torch.empty(0, dtype=torch.int32)
    for table in degree_scaled_svd(empty, empty, 3, 4, 2):
        assert not table.any()
        assert table.isfinite().all()


def test_what_cannot_be_is_refused():
    user, item, num_users, num_items = made_up()
    pairs = user, item, num_users, num_items
    with pytest.raises(ConfigError, match="dim must be at least 1, got 0"):
        degree_scaled_svd(*pairs, 0)
    with pytest.raises(ConfigError, match="iterations must be at least 1, got 0"):
        degree_scaled_svd(*pairs, 2, iterations=0)
    with pytest.raises(ConfigError, match="call sweep"):
        DegreeScaledSVD(interactions(*pairs), 2).finish()
    with pytest.raises(DataError, match="columns of one length"):
        degree_scaled_svd(user[1:], item, num_users, num_items, 2)
    with pytest.raises(DataError, match="user must be at least 0 and below 9"):
        degree_scaled_svd(user, item, 9, num_items, 2)


@pytest.mark.parametrize("width", [64, 128, 100, 3])
def test_compiled_product_is_the_plain_one(width, monkeypatch):
    pytest.importorskip("numba", reason="the compiled product needs the extra `fast`")
    user, item, num_users, num_items = made_up(2, 600, 40, 3000)
    side = interactions(user, item, num_users, num_items).users
    rng = torch.Generator().manual_seed(0)
    own, other = (torch.rand(size, generator=rng) for size in (num_users, num_items))
    table = torch.randn(num_items, width, generator=rng)
    x = dense(user, item, num_users, num_items, 0, 0)[0]
    expected = own.double()[:, None] * (torch.from_numpy(x) @ (other[:, None] * table).double())
    with Threads(2) as threads:
        compiled = sparse.product(side, own, other, table, threads)
        monkeypatch.setattr(sparse, "usable", lambda: False)
        plain = sparse.product(side, own, other, table, threads)
    torch.testing.assert_close(compiled.double(), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(plain.double(), expected, atol=1e-5, rtol=1e-5)


def test_threads_leave_torch_as_it_was():
    before = torch.get_num_threads()
    svd.degree_scaled_svd(*made_up(), 2, threads=2)
    assert torch.get_num_threads() == before


def test_gram_matrix_and_product_are_the_dense_ones():
    table = torch.randn(5000, 200, generator=torch.Generator().manual_seed(0))
    with Threads(2) as threads:
        gram, turned = threads.gram(table), threads.product(table, table[:200])
    torch.testing.assert_close(gram, table.double().T @ table.double(), atol=1e-3, rtol=1e-6)
    assert torch.equal(gram, gram.T)
    torch.testing.assert_close(turned, table @ table[:200], atol=1e-3, rtol=1e-5)
