"""What Prometheus is told: requests, unknown ids, scores and their drift, reloads."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
PREFIX = "cflightning"


class Metrics:
    """The metrics of one server; names begin with ``cflightning_``."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._seconds = Histogram(
            f"{PREFIX}_request_seconds",
            "Seconds from a request's header to the end of its answer",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._requests = Counter(
            f"{PREFIX}_requests", "Requests by route and status", ["route", "status"], registry=self.registry
        )
        self._ids = Counter(f"{PREFIX}_ids", "Ids asked for, known or not", ["kind", "known"], registry=self.registry)
        self._reloads = Counter(
            f"{PREFIX}_reloads",
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
