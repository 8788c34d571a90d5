"""What Prometheus is told: requests, unknown ids, scores and their drift, reloads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from cflightning_serve.http.state import State

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_PREFIX = "cflightning"


class Metrics:
    """The metrics of one server; names begin with ``cflightning_``."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._seconds = Histogram(
            f"{_PREFIX}_request_seconds",
            "Seconds from a request's header to the end of its answer",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._requests = Counter(
            f"{_PREFIX}_requests", "Requests by route and status", ["route", "status"], registry=self.registry
        )
        self._ids = Counter(f"{_PREFIX}_ids", "Ids asked for, known or not", ["kind", "known"], registry=self.registry)
        self._reloads = Counter(
            f"{_PREFIX}_reloads",
            "Bundles taken up, refused for a fault, or changed in place",
            ["outcome"],
            registry=self.registry,
        )
        for outcome in ("loaded", "refused", "changed"):
            self._reloads.labels(outcome)
        self._of_ids = {
            (kind, known): self._ids.labels(kind, str(known).lower())
            for kind in ("user", "item")
            for known in (True, False)
        }
        self._of_routes: dict[tuple[str, int], tuple[Histogram, Counter]] = {}

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count one request of a route, ``/recommend``, and how long it took."""
        pair = self._of_routes.get((route, status))
        if pair is None:
            pair = self._seconds.labels(route), self._requests.labels(route, str(status))
            self._of_routes[route, status] = pair
        pair[0].observe(seconds)
        pair[1].inc()

    def ids(self, kind: str, known: Iterable[bool]) -> None:
        """Count ids of a kind, "user" or "item", by whether they were seen in training."""
        flags = list(known)
        right = sum(flags)
        if right:
            self._of_ids[kind, True].inc(right)
        if right < len(flags):
            self._of_ids[kind, False].inc(len(flags) - right)

    def reload(self, outcome: str) -> None:
        """Count a bundle that was "loaded", "refused", or "changed" in place."""
        self._reloads.labels(outcome).inc()

    def text(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self.registry)


class BundleCollector(Collector):
    """What is read off the bundle in use whenever somebody looks."""

    def __init__(self, state: State) -> None:
        self._state = state

    def collect(self) -> Iterable[Metric]:
        """Yield the bundle's identity and age, and the spread of its scores."""
        served = self._state.served
        about = served.scorer.manifest
        info = InfoMetricFamily(f"{_PREFIX}_bundle", "The bundle in use")
        info.add_metric([], {"version": served.version, "created": about.created, "model": about.model})
        yield info
        yield GaugeMetricFamily(
            f"{_PREFIX}_bundle_loaded_timestamp_seconds", "When the bundle in use was taken up", served.loaded
        )
        scores = HistogramMetricFamily(
            f"{_PREFIX}_score", "Scores answered, in bins of the bundle's reference", labels=["question"]
        )
        drift = GaugeMetricFamily(
            f"{_PREFIX}_score_drift_psi",
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
