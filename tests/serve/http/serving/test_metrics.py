"""Prometheus metrics."""

from dataclasses import replace

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cflightning_serve.http.serving.state import ServerState
from cflightning_serve.http.settings import Settings


def scrape(client):
    """Read the metrics: (name, *labels) -> value."""
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def test_requests_and_ids_are_counted(bundle, start):
    with start(ServerState(Settings(bundle))) as client:
        client.post("/recommend", json={"user": 10})
        client.post("/recommend", json={"user": 11})
        client.post("/recommend", json={})
        client.post("/score", json={"pairs": [[10, 0], [10, 1], [11, 3]]})
        client.post("/similar", json={"item": 1})
        client.get("/made/up/by/strangers")
        samples = scrape(client)
    requests = {key[1:]: value for key, value in samples.items() if key[0] == "cflightning_requests_total"}
    assert requests == {
        (("route", "/recommend"), ("status", "200")): 2,
        (("route", "/recommend"), ("status", "422")): 1,
        (("route", "/score"), ("status", "200")): 1,
        (("route", "/similar"), ("status", "404")): 1,
        (("route", "none"), ("status", "404")): 1,
    }
    assert samples["cflightning_request_seconds_count", ("route", "/recommend")] == 3
    assert 0 < samples["cflightning_request_seconds_sum", ("route", "/recommend")] < 5
    ids = {
        (dict(key[1:])["kind"], dict(key[1:])["known"]): value
        for key, value in samples.items()
        if key[0] == "cflightning_ids_total"
    }
    assert ids == {("user", "true"): 3, ("user", "false"): 2, ("item", "true"): 2, ("item", "false"): 2}
    assert "cflightning_score_count" not in {key[0] for key in samples}  # this bundle has no reference
    assert any(key[0] == "cflightning_bundle_info" for key in samples)


def test_scores_and_drift_are_exported(bundles, tables, tmp_path, start):
    scores = tables.score(*np.array([(u, i) for u in tables.user_ids for i in tables.item_ids]).T)
    edges = np.quantile(scores, [0.25, 0.5, 0.75])
    folder = bundles.write_bundle(tmp_path / "bundle", replace(tables, reference={
        "score": {"edges": edges.tolist(), "shares": [0.25] * 4, "k": 1},
        "recommend": {"edges": [3.0], "shares": [0.0, 1.0], "k": 10},
    }))  # fmt: skip
    pairs = [[int(u), int(i)] for u in tables.user_ids for i in tables.item_ids]
    with start(ServerState(Settings(folder))) as client:
        for _ in range(20):
            client.post("/score", json={"pairs": pairs})
        client.post("/recommend", json={"user": 10, "k": 11})
        samples = scrape(client)
    label = ("graph", "score")
    assert samples["cflightning_score_count", label] == 20 * len(pairs)
    assert samples["cflightning_score_sum", label] == pytest.approx(20 * scores.sum(), rel=1e-4)
    buckets = {key: value for key, value in samples.items() if key[0] == "cflightning_score_bucket" and label in key}
    assert len(buckets) == 4 and max(buckets.values()) == 20 * len(pairs)
    assert samples["cflightning_score_drift_psi", label] < 0.01
    assert samples["cflightning_score_count", ("graph", "recommend")] == 10
    assert ("cflightning_score_drift_psi", ("graph", "recommend")) not in samples  # too few scores
