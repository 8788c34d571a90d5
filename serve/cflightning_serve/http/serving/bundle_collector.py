"""Metrics of the bundle in use, read when Prometheus scrapes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from cflightning_serve.http.serving.bundle import State
from cflightning_serve.http.serving.metrics import PREFIX


class BundleCollector(Collector):
    """What is read off the bundle in use whenever somebody looks."""

    def __init__(self, state: State) -> None:
        self._state = state

    def collect(self) -> Iterable[Metric]:
        """Yield the bundle's identity and age, and the spread of its scores."""
        served = self._state.served
        about = served.scorer.manifest
        info = InfoMetricFamily(f"{PREFIX}_bundle", "The bundle in use")
        info.add_metric([], {"version": served.version, "created": about.created, "model": about.model})
        yield info
        yield GaugeMetricFamily(
            f"{PREFIX}_bundle_loaded_timestamp_seconds", "When the bundle in use was taken up", served.loaded
        )
        scores = HistogramMetricFamily(
            f"{PREFIX}_score", "Scores answered, in bins of the bundle's reference", labels=["question"]
        )
        drift = GaugeMetricFamily(
            f"{PREFIX}_score_drift_psi",
            "Population stability index of the newest scores against the bundle's reference",
            labels=["question"],
        )
        for question, spread in served.spreads.items():
            scores.add_metric([question], _buckets(spread.reference.edges, spread.counts().tolist()), spread.sum())
            value = spread.psi()
            if value is not None:
                drift.add_metric([question], value)
        if served.spreads:
            yield scores
            yield drift

    def describe(self) -> Iterable[Metric]:
        """Nothing: names are not checked before there is a bundle."""
        return []


def _buckets(edges: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    """Counts of bins as Prometheus has them: so many up to each edge."""
    bounds = [*map(repr, edges), "+Inf"]
    return list(zip(bounds, np.cumsum(counts).tolist(), strict=True))
