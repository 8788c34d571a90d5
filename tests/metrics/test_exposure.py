"""Coverage, Gini, novelty and popularity against plain loops and known answers."""

import math

import pytest
import torch

from cflightning.errors import ConfigError, DataError
from cflightning.metrics.exposure import METRICS, ExposureMetrics, count_exposures, exposure_metrics

KS = (1, 4, 10)


def made_up(users=80, items=30, width=10, seed=0):
    rng = torch.Generator().manual_seed(seed)
    top = torch.stack([torch.randperm(items - 5, generator=rng)[:width] + 1 for _ in range(users)])
    top[torch.rand(top.shape, generator=rng) < 0.1] = 0
    return top, torch.randint(0, 12, (items,), generator=rng)


def by_definition(lists, popularity, users):
    """Loops over recommended items; the Gini coefficient as half the relative mean difference of all pairs."""
    shown = [item for items in lists for item in items if item]
    n = len(popularity) - 1
    counts = [shown.count(item) for item in range(1, n + 1)]
    differences = sum(abs(a - b) for a in counts for b in counts)
    others = popularity[1:]

    def percentile(item):
        p = popularity[item]
        return (sum(o < p for o in others) + sum(o == p for o in others) / 2) / n

    return [
        len(set(shown)) / n, differences / (2 * n * sum(counts)),
        sum(math.log2(users / max(popularity[item], 1)) for item in shown) / len(shown),
        sum(map(percentile, shown)) / len(shown),
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_metrics_equal_their_definitions(seed):
    top, popularity = made_up(seed=seed)
    metric = ExposureMetrics(popularity, 33, KS)
    for part in top.split(13):
        metric.update(part)
    got = metric.compute()
    assert len(got) == len(METRICS) * len(KS)
    for k in KS:
        expected = by_definition(top[:, :k].tolist(), popularity.tolist(), 33)
        for name, value in zip(METRICS, expected, strict=True):
            assert float(got[f"{name}@{k}"]) == pytest.approx(value, rel=1e-12), (name, k)


def test_known_answers():
    popularity = torch.tensor([9, 1, 2, 4, 8])  # the popularity of index 0 is ignored
    figures = dict(zip(METRICS, exposure_metrics(torch.tensor([7, 5, 5, 5, 5]), popularity, 8).tolist(), strict=True))
    assert figures == pytest.approx({"coverage": 1, "gini": 0, "novelty": (3 + 2 + 1 + 0) / 4, "popularity": 0.5})
    figures = dict(zip(METRICS, exposure_metrics(torch.tensor([7, 0, 0, 0, 5]), popularity, 8).tolist(), strict=True))
    assert figures == pytest.approx({"coverage": 1 / 4, "gini": 3 / 4, "novelty": 0, "popularity": 7 / 8})


def test_nothing_recommended():
    figures = exposure_metrics(torch.zeros(5, dtype=int), torch.ones(5, dtype=int), 8)
    assert float(figures[0]) == 0 and figures[1:].isnan().all()


def test_parts_add_up_to_one_pass():
    top, popularity = made_up()
    torch.testing.assert_close(
        count_exposures(top[:50], 30, KS) + count_exposures(top[50:], 30, KS), count_exposures(top, 30, KS)
    )
    metric = ExposureMetrics(popularity, 33, KS)
    metric.update(top)
    metric.reset()
    metric.update(top[:0])
    assert not metric.counts.any()


def test_clear_errors():
    top, popularity = made_up()
    with pytest.raises(ConfigError, match="got 10 items for 11"):
        count_exposures(top, 30, (11,))
    with pytest.raises(DataError, match="below 20"):
        count_exposures(top, 20, KS)
    with pytest.raises(DataError, match="as many"):
        exposure_metrics(count_exposures(top, 31, KS), popularity, 33)
