"""Top-k recommendations against a stable sort of the whole table."""

import math

import pytest
import torch

from cflightning.errors import ConfigError, DataError, TrainingError
from cflightning.metrics.top_k import rank_all, rank_scores
from cflightning.utils.csr import item_sets


def sorted_whole(scores, seen, k):
    """Rows and scores of the best k, by a dense sort."""
    scores = scores.clone()
    scores[:, 0] = -math.inf
    if seen is not None:
        user, item = seen.pairs(0, seen.num_rows)
        scores[user, item] = -math.inf
    score, item = scores.sort(dim=1, descending=True, stable=True)
    short = max(k - scores.shape[1], 0)
    score = torch.nn.functional.pad(score[:, :k], (0, short), value=-math.inf)
    item = torch.nn.functional.pad(item[:, :k], (0, short))
    return torch.where(score == -math.inf, 0, item), score


def drawn(rng, low, high):
    return int(torch.randint(low, high, (), generator=rng))


def made_up(rng, users, items, dim=4, whole=True):
    """Vectors of small whole numbers, so that scores are exact and many are equal; and seen items."""
    draw = (lambda *s: torch.randint(-2, 3, s, generator=rng).float()) if whole else (
        lambda *s: torch.randn(s, generator=rng))  # fmt: skip
    pairs = drawn(rng, 0, users * items // 2 + 1)
    seen = [torch.randint(0, max(n, 1), (pairs,), generator=rng) for n in (users, items)]
    return draw(users, dim), draw(items, dim), draw(items), item_sets(*seen, users, items)


def whole(blocks):
    blocks = list(blocks)
    return torch.cat([block.item for block in blocks]), torch.cat([block.score for block in blocks])


@pytest.mark.parametrize("seed", range(60))
def test_the_best_are_those_of_a_stable_sort(seed):
    rng = torch.Generator().manual_seed(seed)
    sizes = {"tile_scores": drawn(rng, 1, 4000), "group_blocks": drawn(rng, 1, 4)}
    users, items, k = drawn(rng, 1, 40), drawn(rng, 1, 900), drawn(rng, 1, 30)
    user, item, bias, seen = made_up(rng, users, items)
    if seed % 3 == 0:
        bias = None
    if seed % 5 == 0:
        seen = None
    scores = user @ item.T + (0 if bias is None else bias)
    expected = sorted_whole(scores, seen, k)
    for got in (rank_scores(scores, seen, k), whole(rank_all(user, item, bias, seen, k, drawn(rng, 1, 20), **sizes))):
        torch.testing.assert_close(got[0], expected[0], rtol=0, atol=0)
        torch.testing.assert_close(got[1], expected[1], rtol=0, atol=0)


def test_a_large_catalogue_takes_several_levels_and_tiles():
    rng = torch.Generator().manual_seed(0)
    user, item, bias, seen = made_up(rng, 70, 9000, dim=16, whole=False)
    user, item = user.double(), item.double()
    got = whole(rank_all(user, item, bias, seen, 5, 33))
    expected = sorted_whole(user @ item.T + bias.double(), seen, 5)
    torch.testing.assert_close(got[0], expected[0], rtol=0, atol=0)
    torch.testing.assert_close(got[1], expected[1])


@pytest.mark.parametrize("k", [1, 20, 700])
def test_equal_scores_come_in_the_order_of_rows(k):
    got = rank_scores(torch.zeros(3, 600), None, k)
    rows = [*range(1, min(k, 599) + 1)]
    assert got.item.tolist() == [rows + [0] * (k - len(rows))] * 3
    got = whole(rank_all(torch.ones(3, 2), torch.zeros(600, 2), torch.arange(600) // 100, None, k))[0]
    assert got[0, :3].tolist() == [500, 501, 502][:k]


def test_a_user_who_has_seen_all_items_gets_none():
    seen = item_sets(torch.zeros(9, dtype=int), torch.arange(1, 10), 2, 10)
    got = rank_scores(torch.arange(20.0).view(2, 10), seen, 4)
    assert got.item.tolist() == [[0, 0, 0, 0], [9, 8, 7, 6]]
    assert got.score[0].tolist() == [-math.inf] * 4


def test_parts_of_the_users_give_the_same_lists():
    rng = torch.Generator().manual_seed(1)
    user, item, bias, seen = made_up(rng, 50, 300)
    expected = whole(rank_all(user, item, bias, seen, 7))[0]
    for part in torch.randperm(50, generator=rng).split(17):
        torch.testing.assert_close(whole(rank_all(user[part], item, bias, seen.take(part), 7))[0], expected[part])


def test_trained_parameters_are_detached():
    user, item = torch.nn.Parameter(torch.eye(3)), torch.nn.Parameter(torch.rand(8, 3))
    assert not next(rank_all(user, item, torch.nn.Parameter(torch.rand(8)), k=2)).score.requires_grad


def test_no_users_and_no_items():
    assert list(rank_all(torch.empty(0, 3), torch.rand(8, 3))) == []
    assert rank_scores(torch.empty(0, 8), None, 3).item.shape == (0, 3)
    assert whole(rank_all(torch.rand(2, 3), torch.rand(1, 3), k=2))[0].tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("items", [20, 2000])
def test_scores_that_are_not_numbers_are_refused_unless_left_out(items):
    user, item = torch.rand(5, 3), torch.rand(items, 3)
    item[7, 1] = math.nan
    with pytest.raises(TrainingError, match="NaN for 5 of 5 users"):
        list(rank_all(user, item, k=2))
    everyone = item_sets(torch.arange(5), torch.full((5,), 7), 5, items)
    assert not (whole(rank_all(user, item, seen=everyone, k=2))[0] == 7).any()
    user[3] = math.nan
    with pytest.raises(TrainingError, match="NaN for 1 of 5 users"):
        rank_scores(user @ item.nan_to_num().T, None, 2)


def test_clear_errors():
    user, item = torch.rand(5, 3), torch.rand(8, 3)
    with pytest.raises(ConfigError, match="k must be at least 1, got 0"):
        next(rank_all(user, item, k=0))
    with pytest.raises(ConfigError, match="block must be at least 1, got 0"):
        next(rank_all(user, item, block=0))
    with pytest.raises(DataError, match="of one dim"):
        next(rank_all(user, item[:, 1:]))
    with pytest.raises(DataError, match=r"item_bias must be \[8\], got \[5\]"):
        next(rank_all(user, item, torch.rand(5)))
    with pytest.raises(DataError, match="seen items must be of 5 users and 8 items, got 4 and 8"):
        next(rank_all(user, item, seen=item_sets(torch.tensor([0]), torch.tensor([1]), 4, 8)))
    with pytest.raises(DataError, match="index 0"):
        rank_scores(torch.empty(2, 0))
