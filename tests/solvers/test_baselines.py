"""EASE, item neighbours, popularity and LightGCN smoothing, against dense linear algebra."""

import numpy as np
import pytest
import torch

from cflightning.errors import ConfigError, DataError
from cflightning.metrics.top_k import rank_all
from cflightning.solvers import cooccurrence
from cflightning.solvers.cooccurrence import cooccurrences
from cflightning.solvers.ease import ease, item_scores
from cflightning.solvers.lightgcn import smooth_items
from cflightning.solvers.neighbours import item_neighbours
from cflightning.solvers.popularity import popularity
from cflightning.utils.interactions import make_interactions
from cflightning.utils.thread_pool import ThreadPool

NUM_USERS, NUM_ITEMS = 90, 70


def random_interactions(seed=0, users=NUM_USERS, items=NUM_ITEMS, n=900):
    """Interactions and the dense matrix; some indices have no interactions, and some pairs have index 0."""
    rng = np.random.default_rng(seed)
    user, item = ((rng.random(n) ** 2 * (size - 3)).astype(np.int32) for size in (users, items))
    user, item = np.unique(np.stack([user, item], 1), axis=0).astype(np.int32).T.copy()
    order = rng.permutation(len(user))
    user, item = user[order], item[order]
    x = np.zeros((users, items))
    x[user, item] = 1
    x[0], x[:, 0] = 0, 0
    return make_interactions(torch.from_numpy(user), torch.from_numpy(item), users, items), x


@pytest.mark.parametrize("items", [1, 70, 600])
def test_cooccurrences_equal_the_product(items, implementation):
    interactions, x = (
        random_interactions(items=max(items, 4))
        if items > 1
        else (make_interactions(*torch.zeros(2, 0).int(), 4, 1), None)
    )
    with ThreadPool(2) as pool:
        blocks = [(first, block.clone()) for first, block in cooccurrences(interactions, pool)]
    assert [first for first, _ in blocks] == list(range(0, items, cooccurrence.BLOCK_ROWS))
    expected = np.zeros((1, 1)) if x is None else x.T @ x
    np.testing.assert_array_equal(torch.cat([block for _, block in blocks]), expected)


@pytest.mark.parametrize("l2", [1.0, 50.0])
def test_ease_is_the_minimum(l2, implementation):
    interactions, x = random_interactions()
    weights = ease(interactions, l2, threads=2)
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
def test_scores_are_computed_in_blocks_of_users(block, implementation):
    interactions, x = random_interactions()
    weights = torch.randn(NUM_ITEMS, NUM_ITEMS, generator=torch.Generator().manual_seed(0))
    blocks = list(item_scores(weights, interactions.by_user, block=block, threads=2))
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
def test_neighbours_equal_those_of_a_dense_sort(n, shrinkage, implementation):
    interactions, x = random_interactions()
    found = item_neighbours(interactions, n, shrinkage=shrinkage, threads=2)
    cosines = similar(x, shrinkage)
    assert found.items.shape == found.similarity.shape == (NUM_ITEMS, n)
    width = min(n, NUM_ITEMS)
    np.testing.assert_allclose(found.similarity[:, :width], -np.sort(-cosines)[:, :width], atol=1e-6)
    items, similarity = found.items.numpy(), found.similarity.numpy()
    np.testing.assert_allclose(np.take_along_axis(cosines, items, 1) * (similarity > 0), similarity, atol=1e-6)
    assert ((items > 0) == (similarity > 0)).all()
    assert all(len(set(row[row > 0])) == (row > 0).sum() for row in items)
    expected = np.argsort(-cosines, kind="stable")[:, :width]  # ties in the order of the index
    exact = np.take_along_axis(cosines, expected, 1)
    apart = np.abs(np.diff(exact, axis=1, prepend=2, append=-1))
    certain = (apart[:, :-1] > 1e-6) & (apart[:, 1:] > 1e-6) & (exact > 0) & (np.arange(width) < width - 1)
    assert (items[:, :width] == expected)[certain].all()
    kept = np.zeros_like(cosines)
    for target in range(NUM_ITEMS):
        kept[items[target], target] = similarity[target]
    kept[0] = 0
    for block in (13, 256):
        np.testing.assert_allclose(
            torch.cat(list(found.scores(interactions.by_user, block=block))), x @ kept, atol=1e-5
        )


def test_ties_of_neighbours_are_in_the_order_of_the_index(implementation):
    user = torch.tensor([1, 1, 1, 1, 2, 2, 2, 2], dtype=torch.int32)
    item = torch.tensor([4, 2, 1, 3, 3, 1, 2, 4], dtype=torch.int32)
    found = item_neighbours(make_interactions(user, item, 3, 5), 2, shrinkage=0.0)
    assert found.items.tolist() == [[0, 0], [2, 3], [1, 3], [1, 2], [1, 2]]


def test_a_new_user_is_scored_like_a_training_user():
    interactions, _ = random_interactions()
    user_five = interactions.by_user.part(5, 6)
    for scores in (lambda users: item_scores(ease(interactions, 9.0), users), item_neighbours(interactions, 5).scores):
        torch.testing.assert_close(next(scores(user_five))[0], torch.cat(list(scores(interactions.by_user)))[5])


def test_popularity_is_a_share_of_users_and_ranks_as_a_bias():
    interactions, x = random_interactions()
    found = popularity(interactions)
    np.testing.assert_allclose(found, x.sum(0) / (x.sum(1) > 0).sum(), rtol=1e-6)
    top = next(rank_all(torch.zeros(2, 0), torch.zeros(NUM_ITEMS, 0), found, k=3)).item
    assert top.tolist() == [np.argsort(-x.sum(0), kind="stable")[:3].tolist()] * 2


def test_the_result_does_not_depend_on_the_number_of_threads():
    interactions, _ = random_interactions(1, 700, 600, 9000)
    generator = torch.Generator().manual_seed(0)
    tables = [torch.randn(rows, 70, generator=generator) for rows in (700, 600)]
    for function in (
        lambda threads: ease(interactions, 20.0, threads=threads),
        lambda threads: torch.cat(list(item_scores(torch.ones(600, 600) / 3, interactions.by_user, threads=threads))),
        lambda threads: item_neighbours(interactions, 9, threads=threads).similarity,
        lambda threads: smooth_items(*tables, interactions, 0.5, threads=threads),
    ):
        assert torch.equal(function(1), function(2))


def test_empty_columns(implementation):
    empty = torch.empty(0, dtype=torch.int32)
    interactions = make_interactions(empty, empty, 3, 4)
    assert not ease(interactions, 1.0).any()
    assert not torch.cat(list(item_scores(torch.ones(4, 4), interactions.by_user))).any()
    neighbours = item_neighbours(interactions, 2)
    assert not neighbours.items.any()
    assert not torch.cat(list(neighbours.scores(interactions.by_user))).any()
    assert not popularity(interactions).any()


def test_arguments_out_of_range_are_rejected():
    interactions, _ = random_interactions()
    many = make_interactions(*torch.ones(2, 1).int(), 2, 30_000)
    with pytest.raises(ConfigError, match="at most 25000 items, got 30000, which take 11 GB"):
        ease(many, 1.0)
    with pytest.raises(ConfigError, match="l2 must be above 0, got 0"):
        ease(interactions, 0.0)
    with pytest.raises(DataError, match="items must be below 20"):
        next(item_scores(torch.zeros(20, 20), interactions.by_user))
    with pytest.raises(DataError, match="items must be below 20"):
        next(item_neighbours(random_interactions(items=20)[0]).scores(interactions.by_user))
    for options in ({"n": 0}, {"shrinkage": -1.0}, {"shrinkage": float("nan")}):
        with pytest.raises(ConfigError, match="n must be at least 1 and shrinkage at least 0"):
            item_neighbours(interactions, **options)
