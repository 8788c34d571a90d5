"""Ranking metrics against plain loops over the definitions, known answers, and what must hold."""

import math
import subprocess
import sys
from itertools import pairwise

import pytest
import torch

from cflightning.errors import ConfigError, DataError
from cflightning.metrics.ranking import METRICS, RankingMetrics, is_relevant, ranking_metric, user_metrics
from cflightning.utils.csr import item_sets

KS = (1, 3, 10, 20)


def made_up(users=60, items=40, width=20, pairs=400, seed=0):
    """Lists (some end early) and relevant items; the last users have none."""
    rng = torch.Generator().manual_seed(seed)
    top = torch.stack([torch.randperm(items - 1, generator=rng)[:width] + 1 for _ in range(users)])
    short = torch.randint(width // 2, 4 * width, (users, 1), generator=rng)
    top[torch.arange(width) >= short] = 0
    user = torch.randint(0, users - 5, (pairs,), generator=rng)
    item = (torch.rand(pairs, generator=rng) ** 2 * items).long()  # row 0 among them
    return top, item_sets(user, item, users, items)


def sets(lists):
    edges = lists.offsets.tolist()
    return [set(lists.indices[a:b].tolist()) for a, b in pairwise(edges)]


def by_definition(top, relevant, k):
    """Metrics of one user, from a list of indices and a set of indices."""
    gains = [int(item in relevant) for item in top[:k]]
    n = len(relevant)
    if not n:
        return [0.0] * len(METRICS)
    dcg = sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, 1))
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(n, k) + 1))
    precisions = [sum(gains[:rank]) / rank for rank in range(1, k + 1) if gains[rank - 1]]
    first = gains.index(1) + 1 if any(gains) else math.inf
    return [
        float(any(gains)), sum(gains) / n, sum(gains) / min(n, k), sum(gains) / k, dcg / ideal,
        sum(precisions) / min(n, k), 1 / first,
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("cells", [1, 500, 1 << 22])
def test_metrics_equal_their_definitions(seed, cells):
    top, relevant = made_up(pairs=150 * (seed + 1), seed=seed)
    got = user_metrics(is_relevant(top, relevant, cells), relevant.counts, KS)
    expected = [
        [by_definition(row, wanted, k) for row, wanted in zip(top.tolist(), sets(relevant), strict=True)] for k in KS
    ]
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64).permute(2, 0, 1), rtol=0, atol=1e-14)
    metric = RankingMetrics(KS)
    metric.update(top, relevant)
    counted = relevant.counts > 0
    for i, name in enumerate(METRICS):
        for j, k in enumerate(KS):
            assert float(metric.compute()[f"{name}@{k}"]) == pytest.approx(float(got[i, j, counted].mean()), abs=1e-14)


def test_known_answers():
    # Hits at ranks 1, 3 and 6; four relevant items.
    top = torch.tensor([[7, 1, 5, 2, 3, 9]])
    relevant = item_sets(torch.zeros(4, dtype=int), torch.tensor([9, 7, 5, 8]), 1, 10)
    assert is_relevant(top, relevant).tolist() == [[True, False, True, False, False, True]]
    metric = RankingMetrics((2, 3, 6))
    metric.update(top, relevant)
    got = metric.compute()
    ideal = 1 + 1 / math.log2(3) + 1 / 2 + 1 / math.log2(5)
    expected = {
        "recall@2": 1 / 4, "recall@3": 2 / 4, "recall@6": 3 / 4,
        "capped_recall@2": 1 / 2, "capped_recall@3": 2 / 3, "capped_recall@6": 3 / 4,
        "precision@2": 1 / 2, "precision@3": 2 / 3, "precision@6": 3 / 6,
        "map@2": 1 / 2, "map@3": (1 + 2 / 3) / 3, "map@6": (1 + 2 / 3 + 3 / 6) / 4,
        "ndcg@2": 1 / (1 + 1 / math.log2(3)), "ndcg@6": (1 + 1 / 2 + 1 / math.log2(7)) / ideal,
        "mrr@2": 1, "hr@6": 1,
    }  # fmt: skip
    for name, value in expected.items():
        assert float(got[name]) == pytest.approx(value), name


def test_a_perfect_list_has_1_and_one_without_hits_0():
    relevant = item_sets(torch.zeros(9, dtype=int), torch.arange(1, 10), 1, 30)
    perfect, none = RankingMetrics((5,)), RankingMetrics((5,))
    perfect.update(torch.tensor([[4, 2, 9, 1, 5]]), relevant)
    none.update(torch.tensor([[14, 0, 19, 11, 15]]), relevant)
    got = perfect.compute()
    assert float(got.pop("recall@5")) == pytest.approx(5 / 9)
    assert all(float(value) == pytest.approx(1) for value in got.values())
    assert not any(float(value) for value in none.compute().values())


def test_mrr_and_hr_stop_at_k():
    relevant = item_sets(torch.tensor([0]), torch.tensor([4]), 1, 9)
    metric = RankingMetrics((3, 4))
    metric.update(torch.tensor([[1, 2, 3, 4]]), relevant)
    got = {name: float(value) for name, value in metric.compute().items()}
    assert (got["hr@3"], got["hr@4"], got["mrr@3"], got["mrr@4"]) == (0, 1, 0, 0.25)


def test_users_without_relevant_items_are_not_counted():
    top = torch.tensor([[1, 2], [1, 2]])
    one, both = RankingMetrics((2,)), RankingMetrics((2,))
    one.update(top[:1], item_sets(torch.tensor([0]), torch.tensor([1]), 1, 5))
    both.update(top, item_sets(torch.tensor([0, 1]), torch.tensor([1, 0]), 2, 5))  # index 0 is "no item"
    assert int(both.users) == 1
    assert both.compute() == one.compute()


def test_no_users_give_nan_and_reset_forgets():
    metric = RankingMetrics()
    metric.update(*made_up())
    metric.reset()
    metric.update(torch.empty(0, 20, dtype=int), item_sets(torch.empty(0, dtype=int), torch.empty(0, dtype=int), 0, 9))
    assert all(math.isnan(float(value)) for value in metric.compute().values())


def test_parts_add_up_to_one_pass():
    top, relevant = made_up(users=500, pairs=4000)
    whole, parts = RankingMetrics(KS), [RankingMetrics(KS) for _ in range(3)]
    whole.update(top, relevant)
    order = torch.randperm(500, generator=torch.Generator().manual_seed(1))
    for part, users in zip(parts, order.tensor_split(3), strict=True):
        for batch in users.split(50):
            part.update(top[batch], relevant.take(batch))
    joined = parts[0]
    for part in parts[1:]:
        joined.sums, joined.users = joined.sums + part.sums, joined.users + part.users
    for name, value in whole.compute().items():
        assert float(joined.compute()[name]) == pytest.approx(float(value), rel=1e-13), name


SCRIPT = """
import sys, torch
from cflightning.metrics.exposure import ExposureMetrics
from cflightning.utils.csr import item_sets
from cflightning.metrics.ranking import RankingMetrics
rank, path = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group("gloo", f"file://{path}", rank=rank, world_size=2)
rng = torch.Generator().manual_seed(0)
top = torch.stack([torch.randperm(29, generator=rng)[:10] + 1 for _ in range(70)])
relevant = item_sets(torch.randint(0, 70, (300,), generator=rng), torch.randint(0, 30, (300,), generator=rng), 70, 30)
mine = torch.arange(45) if rank else torch.arange(45, 70)
metrics = [RankingMetrics((5, 10)) for _ in range(2)]
exposures = [ExposureMetrics(torch.arange(30), 40, (5, 10)) for _ in range(2)]
for alone, users in enumerate((mine, torch.arange(70))):
    metrics[alone].update(top[users], relevant.take(users))
    exposures[alone].update(top[users])
for shared, alone in (metrics, exposures):
    alone.sync_on_compute = False
    got = shared.compute()
    for name, value in alone.compute().items():
        torch.testing.assert_close(got[name], value, rtol=1e-13, atol=0)
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_give_what_one_gives(tmp_path):
    command = [sys.executable, "-c", SCRIPT]
    runs = [subprocess.Popen([*command, str(rank), str(tmp_path / "store")]) for rank in (0, 1)]
    assert [run.wait(timeout=120) for run in runs] == [0, 0]


def test_lists_are_sets_in_order_without_row_0():
    user, item = torch.tensor([2, 0, 2, 2, 0], dtype=torch.int32), torch.tensor([5, 0, 1, 5, 3], dtype=torch.int32)
    got = item_sets(user, item, 4, 6)
    assert (got.indices.dtype, got.indices.tolist(), got.offsets.tolist()) == (torch.int32, [3, 1, 5], [0, 1, 1, 3, 3])
    assert got.counts.tolist() == [1, 0, 2, 0] and got.num_rows == 4
    taken = got.take(torch.tensor([2, 1, 2, 0]))
    assert sets(taken) == [{1, 5}, set(), {1, 5}, {3}]
    owner, items = taken.pairs(1, 4)
    assert (owner.tolist(), items.tolist()) == ([1, 1, 2], [1, 5, 3])
    assert sets(got.take(torch.empty(0, dtype=int))) == []


def test_clear_errors():
    with pytest.raises(DataError, match="item must be at least 0 and below 3, got 2 others"):
        item_sets(torch.tensor([0, 0, 0]), torch.tensor([3, 1, -1]), 1, 3)
    with pytest.raises(DataError, match="user must be at least 0 and below 1, got 1 others"):
        item_sets(torch.tensor([1]), torch.tensor([1]), 1, 3)
    with pytest.raises(DataError, match="one length"):
        item_sets(torch.tensor([0, 0]), torch.tensor([1]), 1, 3)
    top, relevant = made_up()
    with pytest.raises(DataError, match="got 59 lists and relevant items of 60"):
        is_relevant(top[1:], relevant)
    with pytest.raises(DataError, match="for each of 60 users"):
        user_metrics(is_relevant(top, relevant), relevant.counts[1:], KS)
    with pytest.raises(ConfigError, match="got 20 items for 21; rank more of them"):
        RankingMetrics((10, 21)).update(top, relevant)
    for ks in ((), (0, 3)):
        with pytest.raises(ConfigError, match="at least 1"):
            RankingMetrics(ks)


def test_a_registered_metric_is_reported():
    def list_precision_at_1(lists):
        return lists.hits[:, :1].expand(-1, len(lists.k))

    ranking_metric(list_precision_at_1)
    try:
        metric = RankingMetrics((3,))
        metric.update(torch.tensor([[1, 2, 3], [3, 2, 1]]), item_sets(torch.tensor([0, 1]), torch.tensor([1, 1]), 2, 5))
        assert float(metric.compute()["list_precision_at_1@3"]) == 0.5
    finally:
        del METRICS["list_precision_at_1"]
