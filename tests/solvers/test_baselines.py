"""EASE, item neighbours, popularity and smoothing against dense linear algebra."""

import numpy as np
import pytest
import torch

from cflightning.errors import ConfigError, DataError
from cflightning.metrics.top_k import rank_all
from cflightning.solvers import cooccurrence, neighbours, sparse
from cflightning.solvers.cooccurrence import cooccurrences
from cflightning.solvers.ease import ease, item_scores
from cflightning.solvers.interactions import interactions
from cflightning.solvers.neighbours import item_neighbours
from cflightning.solvers.popularity import popularity
from cflightning.solvers.smoothing import smooth
from cflightning.utils.thread_pool import Threads

NUM_USERS, NUM_ITEMS = 90, 70


def made_up(seed=0, users=NUM_USERS, items=NUM_ITEMS, n=900):
    """Sides, and the dense matrix; some rows are without pairs, and some pairs are unknown."""
    rng = np.random.default_rng(seed)
    user, item = ((rng.random(n) ** 2 * (size - 3)).astype(np.int32) for size in (users, items))
    user, item = np.unique(np.stack([user, item], 1), axis=0).astype(np.int32).T.copy()
    order = rng.permutation(len(user))
    user, item = user[order], item[order]
    x = np.zeros((users, items))
    x[user, item] = 1
    x[0], x[:, 0] = 0, 0
    return interactions(torch.from_numpy(user), torch.from_numpy(item), users, items), x


@pytest.fixture(params=["compiled", "plain"])
def way(request, monkeypatch):
    if request.param == "plain":
        for module in (cooccurrence, neighbours, sparse):
            monkeypatch.setattr(module, "usable", lambda: False)
    else:
        pytest.importorskip("numba", reason="the compiled counts need the extra `fast`")


@pytest.mark.parametrize("items", [1, 70, 600])
def test_cooccurrences_are_the_product(items, way):
    sides, x = made_up(items=max(items, 4)) if items > 1 else (interactions(*torch.zeros(2, 0).int(), 4, 1), None)
    with Threads(2) as threads:
        blocks = [(first, block.clone()) for first, block in cooccurrences(sides, threads)]
    assert [first for first, _ in blocks] == list(range(0, items, cooccurrence.ROWS))
    expected = np.zeros((1, 1)) if x is None else x.T @ x
    np.testing.assert_array_equal(torch.cat([block for _, block in blocks]), expected)


@pytest.mark.parametrize("l2", [1.0, 50.0])
def test_ease_is_the_minimum(l2, way):
    sides, x = made_up()
    weights = ease(sides, l2, threads=2)
    assert weights.dtype == torch.float32
    p = np.linalg.inv(x.T @ x + l2 * np.eye(NUM_ITEMS))
    expected = -p / np.diag(p)
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(weights, expected, atol=1e-5)
    # Column by column it is the ridge regression on all other items.
    others = np.arange(NUM_ITEMS) != 5
    a = x[:, others]
    ridge = np.linalg.solve(a.T @ a + l2 * np.eye(NUM_ITEMS - 1), a.T @ x[:, 5])
    np.testing.assert_allclose(weights[others, 5], ridge, atol=1e-5)
    empty = x.sum(0) == 0
    assert not weights[empty].any()
    assert not weights[:, empty].any()


@pytest.mark.parametrize("block", [1, 32, 256])
def test_scores_of_users_come_in_blocks(block, way):
    sides, x = made_up()
    weights = torch.randn(NUM_ITEMS, NUM_ITEMS, generator=torch.Generator().manual_seed(0))
    blocks = list(item_scores(weights, sides.users, block=block, threads=2))
    assert all(len(scores) == block for scores in blocks[:-1])
    np.testing.assert_allclose(torch.cat(blocks), x @ weights.double().numpy(), atol=1e-5)


def similar(x, shrinkage):
    c = x.T @ x
    root = np.sqrt(np.diag(c))
    with np.errstate(invalid="ignore"):
        cosines = np.nan_to_num(c / (root[:, None] * root + shrinkage))
    np.fill_diagonal(cosines, 0)
    return cosines


@pytest.mark.parametrize("n", [1, 7, 200])
@pytest.mark.parametrize("shrinkage", [0.0, 10.0])
def test_neighbours_are_those_of_a_dense_sort(n, shrinkage, way):
    sides, x = made_up()
    found = item_neighbours(sides, n, shrinkage=shrinkage, threads=2)
    cosines = similar(x, shrinkage)
    assert found.items.shape == found.similarity.shape == (NUM_ITEMS, n)
    width = min(n, NUM_ITEMS)
    np.testing.assert_allclose(found.similarity[:, :width], -np.sort(-cosines)[:, :width], atol=1e-6)
    items, similarity = found.items.numpy(), found.similarity.numpy()
    np.testing.assert_allclose(np.take_along_axis(cosines, items, 1) * (similarity > 0), similarity, atol=1e-6)
    assert ((items > 0) == (similarity > 0)).all()
    assert all(len(set(row[row > 0])) == (row > 0).sum() for row in items)
    expected = np.argsort(-cosines, kind="stable")[:, :width]  # of equal ones the lower row
    exact = np.take_along_axis(cosines, expected, 1)
    apart = np.abs(np.diff(exact, axis=1, prepend=2, append=-1))
    certain = (apart[:, :-1] > 1e-6) & (apart[:, 1:] > 1e-6) & (exact > 0) & (np.arange(width) < width - 1)
    assert (items[:, :width] == expected)[certain].all()
    kept = np.zeros_like(cosines)
    for target in range(NUM_ITEMS):
        kept[items[target], target] = similarity[target]
    kept[0] = 0
    for block in (13, 256):
        np.testing.assert_allclose(torch.cat(list(found.scores(sides.users, block=block))), x @ kept, atol=1e-5)


def test_of_equal_neighbours_the_lower_row_is_kept(way):
    user = torch.tensor([1, 1, 1, 1, 2, 2, 2, 2], dtype=torch.int32)
    item = torch.tensor([4, 2, 1, 3, 3, 1, 2, 4], dtype=torch.int32)
    found = item_neighbours(interactions(user, item, 3, 5), 2, shrinkage=0.0)
    assert found.items.tolist() == [[0, 0], [2, 3], [1, 3], [1, 2], [1, 2]]


def test_a_new_user_is_scored_like_an_old_one():
    sides, _ = made_up()
    of_five = sides.users.part(5, 6)
    for scores in (lambda users: item_scores(ease(sides, 9.0), users), item_neighbours(sides, 5).scores):
        torch.testing.assert_close(next(scores(of_five))[0], torch.cat(list(scores(sides.users)))[5])


def test_popularity_is_a_share_of_users_and_ranks_as_a_bias():
    sides, x = made_up()
    found = popularity(sides)
    np.testing.assert_allclose(found, x.sum(0) / (x.sum(1) > 0).sum(), rtol=1e-6)
    top = next(rank_all(torch.zeros(2, 0), torch.zeros(NUM_ITEMS, 0), found, k=3)).item
    assert top.tolist() == [np.argsort(-x.sum(0), kind="stable")[:3].tolist()] * 2


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("dim", [5, 64])
def test_smoothing_is_a_layer_of_the_graph(unit, dim, way):
    sides, x = made_up()
    generator = torch.Generator().manual_seed(0)
    tables = [torch.randn(rows, dim, generator=generator) for rows in x.shape]
    p, q = (table.double().numpy() for table in tables)
    if unit:
        p, q = (table / np.linalg.norm(table, axis=1, keepdims=True) for table in (p, q))
    step = x / np.sqrt(np.maximum(x.sum(1), 1))[:, None] / np.sqrt(np.maximum(x.sum(0), 1))
    users, items = smooth(*tables, sides, unit=unit, threads=2)
    np.testing.assert_allclose(users, p + step @ q, atol=1e-5)
    np.testing.assert_allclose(items, q + step.T @ p, atol=1e-5)


def test_rows_that_are_zero_and_alone_stay_zero_when_smoothed():
    sides, _ = made_up()
    users, items = smooth(torch.zeros(NUM_USERS, 4), torch.zeros(NUM_ITEMS, 4), sides)
    assert not users.any()
    assert not items.any()


def test_any_number_of_threads_gives_the_same_bits():
    sides, _ = made_up(1, 700, 600, 9000)
    generator = torch.Generator().manual_seed(0)
    tables = [torch.randn(rows, 70, generator=generator) for rows in (700, 600)]
    for function in (
        lambda threads: ease(sides, 20.0, threads=threads),
        lambda threads: torch.cat(list(item_scores(torch.ones(600, 600) / 3, sides.users, threads=threads))),
        lambda threads: item_neighbours(sides, 9, threads=threads).similarity,
        lambda threads: torch.cat(smooth(*tables, sides, threads=threads)),
    ):
        assert torch.equal(function(1), function(2))


def test_nothing_at_all(way):
    empty = torch.empty(0, dtype=torch.int32)
    sides = interactions(empty, empty, 3, 4)
    assert not ease(sides, 1.0).any()
    assert not torch.cat(list(item_scores(torch.ones(4, 4), sides.users))).any()
    neighbours = item_neighbours(sides, 2)
    assert not neighbours.items.any()
    assert not torch.cat(list(neighbours.scores(sides.users))).any()
    assert not popularity(sides).any()


def test_what_cannot_be_is_refused():
    sides, _ = made_up()
    with pytest.raises(ConfigError, match="at most 60 items, got 70, which take 0 GB; raise limit"):
        ease(sides, 1.0, limit=60)
    with pytest.raises(ConfigError, match="l2 must be above 0, got 0"):
        ease(sides, 0.0)
    with pytest.raises(DataError, match="items must be below 20"):
        next(item_scores(torch.zeros(20, 20), sides.users))
    with pytest.raises(DataError, match="items must be below 20"):
        next(item_neighbours(made_up(items=20)[0]).scores(sides.users))
    for options in ({"n": 0}, {"shrinkage": -1.0}, {"shrinkage": float("nan")}):
        with pytest.raises(ConfigError, match="n must be at least 1 and shrinkage at least 0"):
            item_neighbours(sides, **options)
    for users, items in ((NUM_USERS, 3), (4, NUM_ITEMS)):
        with pytest.raises(DataError, match="smooth: vectors must be"):
            smooth(torch.zeros(users, 2), torch.zeros(items, 2), sides)
    with pytest.raises(DataError, match="smooth: vectors must be"):
        smooth(torch.zeros(NUM_USERS, 2), torch.zeros(NUM_ITEMS, 3), sides)
