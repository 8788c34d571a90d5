"""Prometheus metrics: requests, ids, reloads, and the loaded bundle with the drift of its scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from cflightning_serve.http.serving.loaded_bundle import LoadedBundle

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Media type of Prometheus' text format."""
_PREFIX = "cflightning"
_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""Upper bounds of the latency histogram, in seconds."""

ReloadOutcome = Literal["loaded", "refused", "changed"]


class Metrics:
    """The metrics of one server; their names begin with ``cflightning_``.

    Args:
        get_bundle: returns the loaded bundle.
    """

    def __init__(self, get_bundle: Callable[[], LoadedBundle]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.registry.register(_BundleCollector(get_bundle))
        self._seconds = Histogram(
            f"{_PREFIX}_request_seconds",
            "Seconds from a request's headers to the end of its response",
            ["route"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._requests = Counter(
            f"{_PREFIX}_requests", "Requests by route and status", ["route", "status"], registry=self.registry
        )
        self._ids = Counter(
            f"{_PREFIX}_ids", "Ids in requests, by whether training has seen them", ["kind", "known"],
            registry=self.registry,
        )  # fmt: skip
        self._reloads = Counter(
            f"{_PREFIX}_reloads",
            "Bundles that were loaded, refused because of a fault, or changed in place",
            ["outcome"],
            registry=self.registry,
        )
        for outcome in ("loaded", "refused", "changed"):
            self._reloads.labels(outcome)
        self._id_counters = {
            (kind, known): self._ids.labels(kind, str(known).lower())
            for kind in ("user", "item")
            for known in (True, False)
        }
        self._route_metrics: dict[tuple[str, int], tuple[Histogram, Counter]] = {}

    def count_request(self, route: str, status: int, seconds: float) -> None:
        """Count one request of a route such as ``/recommend``, and its latency."""
        metrics = self._route_metrics.get((route, status))
        if metrics is None:
            metrics = self._seconds.labels(route), self._requests.labels(route, str(status))
            self._route_metrics[route, status] = metrics
        metrics[0].observe(seconds)
        metrics[1].inc()

    def count_ids(self, kind: Literal["user", "item"], known: Sequence[bool]) -> None:
        """Count ids by whether training has seen them."""
        num_known = sum(known)
        if num_known:
            self._id_counters[kind, True].inc(num_known)
        if num_known < len(known):
            self._id_counters[kind, False].inc(len(known) - num_known)

    def count_reload(self, outcome: ReloadOutcome) -> None:
        """Count a new bundle."""
        self._reloads.labels(outcome).inc()

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class _BundleCollector(Collector):
    """Collector that reads identity, age and score distributions of the loaded bundle at each scrape."""

    def __init__(self, get_bundle: Callable[[], LoadedBundle]) -> None:
        self._get_bundle = get_bundle

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics of the loaded bundle."""
        bundle = self._get_bundle()
        manifest = bundle.scorer.manifest
        info = InfoMetricFamily(f"{_PREFIX}_bundle", "The loaded bundle")
        info.add_metric([], {"version": bundle.version, "created": manifest.created, "model": manifest.model})
        yield info
        yield GaugeMetricFamily(
            f"{_PREFIX}_bundle_loaded_timestamp_seconds", "Time at which the bundle was loaded", bundle.loaded_at
        )
        scores = HistogramMetricFamily(
            f"{_PREFIX}_score", "Scores of responses, in bins of the bundle's reference", labels=["graph"]
        )
        drift = GaugeMetricFamily(
            f"{_PREFIX}_score_drift_psi",
            "Population stability index of the newest scores against the bundle's reference",
            labels=["graph"],
        )
        for graph, distribution in bundle.score_distributions.items():
            buckets = _cumulative(distribution.reference.edges, distribution.counts().tolist())
            scores.add_metric([graph], buckets, distribution.sum())
            psi = distribution.psi()
            if psi is not None:
                drift.add_metric([graph], psi)
        if bundle.score_distributions:
            yield scores
            yield drift

    def describe(self) -> Iterable[Metric]:
        """Return nothing: the registry must not check names before a bundle is loaded."""
        return []


def _cumulative(edges: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    """Return a histogram in Prometheus' form: upper bound of each bin, and the number of values up to it."""
    bounds = [*map(repr, edges), "+Inf"]
    return list(zip(bounds, np.cumsum(counts).tolist(), strict=True))
