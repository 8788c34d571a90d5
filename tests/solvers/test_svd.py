"""The degree-scaled SVD against a dense one."""

import numpy as np
import pytest
import torch

from cflightning.errors import ConfigError, DataError
from cflightning.solvers.sparse import scaled_product
from cflightning.solvers.svd import DegreeScaledSVD, fold_in
from cflightning.utils.interactions import make_interactions
from cflightning.utils.thread_pool import ThreadPool


def random_pairs(seed=0, users=70, items=50, n=600):
    """Pairs, none twice, of users and items of uneven popularity."""
    rng = np.random.default_rng(seed)
    drawn = [(rng.random(n) ** 2 * (size - 1)).astype(np.int32) + 1 for size in (users, items)]
    user, item = np.unique(np.stack(drawn, 1), axis=0).astype(np.int32).T.copy()
    order = rng.permutation(len(user))
    return torch.from_numpy(user[order]), torch.from_numpy(item[order]), users + 3, items + 2


def vectors_after(sweeps, user, item, num_users, num_items, dim, **options):
    """The vectors after some sweeps."""
    solver = DegreeScaledSVD(make_interactions(user, item, num_users, num_items), dim, **options)
    for _ in range(sweeps):
        solver.sweep()
    return solver.vectors()


def dense(user, item, num_users, num_items, user_power, item_power):
    """X, the degrees and M, in double precision."""
    x = np.zeros((num_users, num_items))
    np.add.at(x, (user.numpy(), item.numpy()), 1)
    degrees = [np.maximum(x.sum(axis), 1) for axis in (1, 0)]
    return x, degrees, degrees[0][:, None] ** -user_power * x * degrees[1] ** -item_power


@pytest.mark.parametrize("dim", [1, 8, 20])
@pytest.mark.parametrize("powers", [(0.3, 0.5, 0.4), (0.5, 0.5, 0.5), (0.0, 0.0, 0.0)])
def test_scores_equal_those_of_a_dense_svd(dim, powers):
    pairs = random_pairs()
    x, degrees, m = dense(*pairs, *powers[:2])
    v = np.linalg.svd(m)[2][:dim].T
    expected = x * degrees[1] ** -powers[1] @ v @ (degrees[1][:, None] ** powers[2] * v).T
    names = "user_power", "item_power", "score_power"
    tables = vectors_after(4, *pairs, dim, **dict(zip(names, powers, strict=True)))
    assert [table.dtype for table in tables] == [torch.float32] * 2
    assert tables[0].shape == (pairs[2], dim)
    assert tables[1].shape == (pairs[3], dim)
    np.testing.assert_allclose((tables[0] @ tables[1].T).numpy(), expected, atol=2e-4 * np.abs(expected).max())


def test_directions_are_orthonormal_and_eigenvalues_fall():
    pairs = random_pairs(3, 900, 700, 9000)
    solver = DegreeScaledSVD(make_interactions(*pairs), 8)
    shares = [solver.sweep() for _ in range(20)]
    assert shares[0] < shares[1] < shares[2] < shares[-1] + 1e-9
    m = dense(*pairs, 0.3, 0.5)[2]
    squares = np.linalg.svd(m)[1] ** 2
    assert shares[-1] == pytest.approx(squares[:8].sum() / squares.sum(), rel=1e-5)
    np.testing.assert_allclose(solver.values[:8], squares[:8], rtol=1e-5)
    v = solver.basis
    torch.testing.assert_close(v.T @ v, torch.eye(v.shape[1]), atol=1e-5, rtol=0)


def test_fewer_items_than_directions_are_padded_with_zeros():
    user, item = torch.tensor([1, 1, 2, 3, 3, 3]), torch.tensor([1, 2, 2, 1, 2, 3])
    users, items = vectors_after(3, user.int(), item.int(), 4, 4, 10, item_power=0.5, score_power=0.5)
    x = torch.zeros(4, 4).index_put((user, item), torch.tensor(1.0))
    torch.testing.assert_close(users @ items.T, x, atol=1e-5, rtol=0)  # V V^T is the identity
    assert not users[:, 3:].any()
    assert not items[:, 3:].any()


def test_index_0_and_indices_without_interactions_have_zero_vectors():
    user, item, num_users, num_items = random_pairs()
    expected = vectors_after(2, user, item, num_users, num_items, 5)
    zeros = torch.zeros(4, dtype=torch.int32)
    some = torch.tensor([0, 1, 2, 3], dtype=torch.int32)
    more = torch.cat([user, zeros, some]), torch.cat([item, some, zeros])
    found = vectors_after(2, *more, num_users, num_items, 5)
    for table, other, column in zip(found, expected, (user, item), strict=True):
        assert torch.equal(table, other)
        empty = torch.bincount(column, minlength=len(table)) == 0
        assert empty[0]
        assert not table[empty].any()


def test_the_result_depends_on_the_seed_and_not_on_the_number_of_threads():
    pairs = random_pairs(1, 900, 700, 9000)
    alone, helped, again, other = (
        vectors_after(2, *pairs, 100, seed=seed, threads=threads) for seed, threads in ((0, 1), (0, 2), (0, 4), (1, 1))
    )
    for table, two, four, seeded in zip(alone, helped, again, other, strict=True):
        assert torch.equal(table, two)
        assert torch.equal(table, four)
        assert not torch.equal(table, seeded)


def test_the_iteration_resumes_from_a_saved_basis():
    whole, first, second = (DegreeScaledSVD(make_interactions(*random_pairs()), 6) for _ in range(3))
    whole.sweep()
    whole.sweep()
    first.sweep()
    second.basis, second.values = first.basis.clone(), first.values.clone()
    second.sweep()
    assert all(torch.equal(a, b) for a, b in zip(whole.vectors(), second.vectors(), strict=True))


def test_a_user_vector_is_a_sum_over_the_items():
    pairs = random_pairs()
    solver = DegreeScaledSVD(make_interactions(*pairs), 6)
    solver.sweep()
    users, _ = solver.vectors()
    rows = pairs[1][pairs[0] == 5].long()
    torch.testing.assert_close((solver.item_scale[rows, None] * solver.basis[rows, :6]).sum(0), users[5])


@pytest.mark.parametrize("powers", [(0.5, 0.4), (0.2, 0.0)], ids=str)
def test_fold_in_gives_the_vectors_of_training(powers):
    user, item, num_users, num_items = random_pairs()
    interactions = make_interactions(user, item, num_users, num_items)
    solver = DegreeScaledSVD(interactions, 8, item_power=powers[0], score_power=powers[1])
    solver.sweep()
    users, items = solver.vectors()
    found = fold_in(
        items, interactions.by_user, interactions.by_item.counts, item_power=powers[0], score_power=powers[1]
    )
    torch.testing.assert_close(found, users, atol=1e-5, rtol=1e-4)
    nobody = fold_in(items, interactions.by_user.part(0, 0), interactions.by_item.counts)
    assert nobody.shape == (0, 8)


def test_values_are_entries_of_the_matrix():
    pairs = random_pairs()
    plain = DegreeScaledSVD(make_interactions(*pairs), 6)
    doubled = DegreeScaledSVD(make_interactions(*pairs, torch.full(pairs[0].shape, 2.0)), 6)
    assert doubled.squared_norm == pytest.approx(4 * plain.squared_norm)
    assert doubled.sweep() == pytest.approx(plain.sweep(), rel=1e-3)


def test_empty_columns():
    empty = torch.empty(0, dtype=torch.int32)
    for table in vectors_after(2, empty, empty, 3, 4, 2):
        assert not table.any()
        assert table.isfinite().all()


def test_arguments_out_of_range_are_rejected():
    user, item, num_users, num_items = random_pairs()
    pairs = user, item, num_users, num_items
    with pytest.raises(ConfigError, match="dim must be at least 1, got 0"):
        vectors_after(2, *pairs, 0)
    with pytest.raises(ConfigError, match="call sweep"):
        DegreeScaledSVD(make_interactions(*pairs), 2).vectors()
    with pytest.raises(DataError, match="columns of one length"):
        vectors_after(2, user[1:], item, num_users, num_items, 2)
    with pytest.raises(DataError, match="user must be at least 0 and below 9"):
        vectors_after(2, user, item, 9, num_items, 2)


@pytest.mark.parametrize("width", [64, 128, 100, 3])
def test_the_sparse_product_equals_the_dense_one(width, implementation):
    user, item, num_users, num_items = random_pairs(2, 600, 40, 3000)
    matrix = make_interactions(user, item, num_users, num_items).by_user
    rng = torch.Generator().manual_seed(0)
    own, other = (torch.rand(size, generator=rng) for size in (num_users, num_items))
    table = torch.randn(num_items, width, generator=rng)
    x = dense(user, item, num_users, num_items, 0, 0)[0]
    expected = own.double()[:, None] * (torch.from_numpy(x) @ (other[:, None] * table).double())
    with ThreadPool(2) as pool:
        product = scaled_product(matrix, own, other, table, pool)
    torch.testing.assert_close(product.double(), expected, atol=1e-5, rtol=1e-5)


def test_the_thread_pool_restores_the_threads_of_torch():
    before = torch.get_num_threads()
    vectors_after(2, *random_pairs(), 2, threads=2)
    assert torch.get_num_threads() == before


def test_gram_matrix_and_product_equal_the_dense_ones():
    table = torch.randn(5000, 200, generator=torch.Generator().manual_seed(0))
    with ThreadPool(2) as pool:
        gram, turned = pool.gram(table), pool.product(table, table[:200])
    torch.testing.assert_close(gram, table.double().T @ table.double(), atol=1e-3, rtol=1e-6)
    assert torch.equal(gram, gram.T)
    torch.testing.assert_close(turned, table @ table[:200], atol=1e-3, rtol=1e-5)
