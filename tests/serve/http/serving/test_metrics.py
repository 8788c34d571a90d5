"""What Prometheus is told."""

from dataclasses import replace

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cflightning_serve import Scorer
from cflightning_serve.bundle.reference import Reference
from cflightning_serve.http.serving.bundle import State
from cflightning_serve.http.serving.drift import FEW, WINDOW, Spread, psi
from cflightning_serve.http.settings import Settings


def samples(client):
    """(name, labels) -> value."""
    reply = client.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(reply.text)
        for sample in family.samples
    }


def test_requests_and_ids_are_counted(bundle, start):
    with start(State(Settings(bundle))) as client:
        client.post("/recommend", json={"user": 10})
        client.post("/recommend", json={"user": 11})
        client.post("/recommend", json={})
        client.post("/score", json={"pairs": [[10, 0], [10, 1], [11, 3]]})
        client.post("/similar", json={"item": 1})
        client.get("/made/up/by/strangers")
        found = samples(client)
    requests = {key[1:]: value for key, value in found.items() if key[0] == "cflightning_requests_total"}
    assert requests == {
        (("route", "/recommend"), ("status", "200")): 2,
        (("route", "/recommend"), ("status", "422")): 1,
        (("route", "/score"), ("status", "200")): 1,
        (("route", "/similar"), ("status", "404")): 1,
        (("route", "none"), ("status", "404")): 1,
    }
    assert found["cflightning_request_seconds_count", ("route", "/recommend")] == 3
    assert 0 < found["cflightning_request_seconds_sum", ("route", "/recommend")] < 5
    ids = {
        (dict(key[1:])["kind"], dict(key[1:])["known"]): value
        for key, value in found.items()
        if key[0] == "cflightning_ids_total"
    }
    assert ids == {("user", "true"): 3, ("user", "false"): 2, ("item", "true"): 2, ("item", "false"): 2}
    assert "cflightning_score_count" not in {key[0] for key in found}  # this bundle has no reference
    assert any(key[0] == "cflightning_bundle_info" for key in found)


REFERENCE = Reference(edges=(1.0, 2.0, 3.0), shares=(0.25, 0.25, 0.25, 0.25), k=1)


def test_spread_has_the_bins_of_the_reference():
    spread = Spread(REFERENCE)
    spread.add(np.array([0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 9.0], np.float32))
    assert spread.counts().tolist() == [2, 2, 2, 1]  # an edge belongs to the bin below
    assert spread.sum() == pytest.approx(19.5)
    spread.add(np.array([], np.float32))
    assert spread.counts().sum() == 7


def test_lists_are_cut_to_the_references_length_and_shorter_ones_left_out():
    spread = Spread(REFERENCE._replace(k=3))
    spread.add(np.array([4, 3, 2, 1, 0], np.float32))
    spread.add(np.array([4, 3], np.float32))
    assert spread.counts().tolist() == [0, 1, 1, 1]


def test_psi_against_its_formula():
    counts, shares = np.array([10, 20, 30, 40]), (0.25, 0.25, 0.25, 0.25)
    expected = sum((n / 100 - 0.25) * np.log(n / 25) for n in counts)
    assert psi(counts, shares) == pytest.approx(expected, rel=0.1)  # but for half a score in every bin
    assert psi(counts * 1000, shares) == pytest.approx(expected, rel=1e-3)
    assert psi(np.array([25, 25, 25, 25]), shares) == 0
    assert np.isfinite(psi(np.array([100, 0, 0, 0]), (0.0, 0.5, 0.5, 0.0)))


def test_drift_is_of_late_and_of_enough_scores():
    spread, rng = Spread(REFERENCE), np.random.default_rng(0)
    spread.add(rng.uniform(0, 4, FEW - 1).astype(np.float32))
    assert spread.psi() is None
    spread.add(rng.uniform(0, 4, WINDOW).astype(np.float32))
    assert spread.psi() < 0.01
    for _ in range(2):
        spread.add(rng.uniform(2, 6, WINDOW).astype(np.float32))
    assert spread.psi() > 0.25
    for _ in range(2):
        spread.add(rng.uniform(0, 4, WINDOW).astype(np.float32))
    assert spread.psi() < 0.01  # what is long past is forgotten
    assert spread.counts().sum() == FEW - 1 + 5 * WINDOW


def test_scores_and_drift_are_told(bundles, tables, tmp_path, start):
    scores = tables.score(*np.array([(u, i) for u in tables.user_ids for i in tables.item_ids]).T)
    edges = np.quantile(scores, [0.25, 0.5, 0.75])
    folder = bundles.write_bundle(tmp_path / "bundle", replace(tables, reference={
        "score": {"edges": edges.tolist(), "shares": [0.25] * 4, "k": 1},
        "recommend": {"edges": [3.0], "shares": [0.0, 1.0], "k": 10},
    }))  # fmt: skip
    pairs = [[int(u), int(i)] for u in tables.user_ids for i in tables.item_ids]
    with start(State(Settings(folder))) as client:
        for _ in range(20):
            client.post("/score", json={"pairs": pairs})
        client.post("/recommend", json={"user": 10, "k": 11})
        found = samples(client)
    label = ("question", "score")
    assert found["cflightning_score_count", label] == 20 * len(pairs)
    assert found["cflightning_score_sum", label] == pytest.approx(20 * scores.sum(), rel=1e-4)
    buckets = {key: value for key, value in found.items() if key[0] == "cflightning_score_bucket" and label in key}
    assert len(buckets) == 4 and max(buckets.values()) == 20 * len(pairs)
    assert found["cflightning_score_drift_psi", label] < 0.01
    assert found["cflightning_score_count", ("question", "recommend")] == 10
    assert ("cflightning_score_drift_psi", ("question", "recommend")) not in found  # too few


def test_a_scorer_of_its_own_counts_anew(bundle):
    state = State(Settings(bundle), Scorer.load(bundle))
    assert state.served.spreads == {}
