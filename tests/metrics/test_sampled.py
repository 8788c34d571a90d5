"""Ranks among sampled candidates against a plain loop and known answers."""

import math

import pytest
import torch

from cflightning.errors import ConfigError, DataError, TrainingError
from cflightning.metrics.sampled import SampledMetrics, sampled_ranks


def by_definition(item, score, negatives, negative_scores):
    candidates = {n: s for n, s in zip(negatives, negative_scores, strict=True) if n not in (0, item)}
    others = list(candidates.values())
    return sum(s > score for s in others) + sum(s == score for s in others) / 2


@pytest.mark.parametrize("seed", range(4))
def test_ranks_are_those_of_the_definition(seed):
    rng = torch.Generator().manual_seed(seed)
    table = torch.randint(0, 30, (50, 40), generator=rng) / 4  # scores of an item are the same wherever it is
    item, negatives = torch.randint(1, 40, (50,), generator=rng), torch.randint(0, 40, (50, 25), generator=rng)
    score, negative_scores = table.gather(1, item[:, None]).squeeze(-1), table.gather(1, negatives)
    got = sampled_ranks(item, score, negatives, negative_scores)
    columns = item.tolist(), score.tolist(), negatives.tolist(), negative_scores.tolist()
    expected = [by_definition(*row) for row in zip(*columns, strict=True)]
    assert got.tolist() == expected
    metric = SampledMetrics((3, 10))
    for part in torch.arange(50).split(17):
        metric.update(item[part], score[part], negatives[part], negative_scores[part])
    figures = metric.compute()
    for k in (3, 10):
        within = [rank for rank in expected if rank < k]
        assert float(figures[f"sampled_hr@{k}"]) == pytest.approx(len(within) / 50)
        assert float(figures[f"sampled_ndcg@{k}"]) == pytest.approx(sum(1 / math.log2(r + 2) for r in within) / 50)
        assert float(figures[f"sampled_mrr@{k}"]) == pytest.approx(sum(1 / (r + 1) for r in within) / 50)


def test_known_answers():
    item, score = torch.tensor([4, 4, 4]), torch.tensor([2.0, 2.0, 2.0])
    negatives = torch.tensor([[1, 2, 3], [4, 1, 1], [0, 0, 3]])  # the true item and a double; two missing
    scores = torch.tensor([[3.0, 2.0, 1.0], [2.0, 5.0, 5.0], [9.0, 9.0, 2.0]])
    assert sampled_ranks(item, score, negatives, scores).tolist() == [1.5, 1, 0.5]


def test_a_model_that_scores_all_alike_is_in_the_middle():
    negatives = torch.arange(2, 101).expand(7, 99)
    rank = sampled_ranks(torch.ones(7, dtype=int), torch.zeros(7), negatives, torch.zeros(7, 99))
    assert rank.tolist() == [49.5] * 7


def test_no_users_give_nan_and_no_negatives_the_first_rank():
    metric = SampledMetrics()
    metric.update(torch.empty(0, dtype=int), torch.empty(0), torch.empty(0, 9, dtype=int), torch.empty(0, 9))
    assert all(math.isnan(float(value)) for value in metric.compute().values())
    alone = sampled_ranks(torch.ones(2, dtype=int), torch.ones(2), torch.empty(2, 0, dtype=int), torch.empty(2, 0))
    assert alone.tolist() == [0, 0]


def test_clear_errors():
    item, negatives = torch.tensor([1, 2]), torch.tensor([[3, 4], [3, 1]])
    with pytest.raises(DataError, match=r"got \[2\], \[1\]"):
        sampled_ranks(item, torch.ones(1), negatives, torch.ones(2, 2))
    with pytest.raises(DataError, match="got 1 of index 0"):
        sampled_ranks(item - 1, torch.ones(2), negatives, torch.ones(2, 2))
    with pytest.raises(TrainingError, match="NaN for 1 of 2 users"):
        sampled_ranks(item, torch.ones(2), negatives, torch.tensor([[1, 1], [1, math.nan]]))
    with pytest.raises(ConfigError, match="at least 1"):
        SampledMetrics((0,))


@pytest.mark.data
def test_popularity_has_its_published_metrics(real_data):
    """Rendle et al. 2020, table 1, has .4535 and .2543 on MovieLens 1M; the true item is dropped from its negatives."""
    import gzip
    import re

    import pandas as pd

    folder = real_data / "ncf-ml-1m"
    train = pd.read_parquet(folder / "train.parquet")
    popularity = torch.bincount(torch.tensor(train["item"].to_numpy()) + 1).float()
    with gzip.open(folder / "ml-1m.test.negative.gz", "rt") as lines:
        rows = torch.tensor([[int(number) + 1 for number in re.findall(r"\d+", line)] for line in lines])
    item, negatives = rows[:, 1], rows[:, 2:]
    assert negatives.shape == (6040, 99) and int((negatives == item[:, None]).sum()) == 156
    metric = SampledMetrics((10,))
    metric.update(item, popularity[item], negatives, popularity[negatives])
    figures = metric.compute()
    assert float(figures["sampled_hr@10"]) == pytest.approx(0.4538, abs=5e-5)
    assert float(figures["sampled_ndcg@10"]) == pytest.approx(0.2543, abs=5e-5)
