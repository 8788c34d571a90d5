"""A bundle whose answers are not numbers gives errors, never NaN in JSON, and no traceback in the log."""

from dataclasses import replace

import httpx
import numpy as np
import pytest

from cflightning_serve import BundleError
from cflightning_serve.http.serving.state import ServerState
from cflightning_serve.http.settings import Settings


@pytest.fixture(scope="module")
def spoilt(bundles, tmp_path_factory):
    """One user's and one item's vectors are NaN."""
    tables = bundles.make_rich(bundles.make_tables(titles=True))
    users, items = tables.user_vectors.copy(), tables.item_vectors.copy()
    users[1] = items[-1] = np.nan
    tables = replace(tables, user_vectors=users, item_vectors=items)
    return bundles.write_bundle(tmp_path_factory.mktemp("spoilt") / "bundle", tables)


def test_it_is_refused_at_start(spoilt):
    with pytest.raises(BundleError, match="weights.bin: tables must not contain NaN, .* does"):
        ServerState(Settings(spoilt))


def test_every_route_answers_numbers_or_an_error(spoilt, bundles, tmp_path, start, caplog):
    """Unverified, and only asked for the rest when it was loaded: one user is NaN."""
    tables = bundles.make_rich(bundles.make_tables(titles=True))
    users = tables.user_vectors.copy()
    users[1] = np.nan
    folder = bundles.write_bundle(tmp_path / "bundle", replace(tables, user_vectors=users))
    user = int(tables.user_ids[0])
    infer = {
        "inputs": [
            {"name": "user", "shape": [1], "datatype": "INT64", "data": [user]},
            {"name": "k", "shape": [1], "datatype": "INT64", "data": [3]},
            {"name": "exclude_user", "shape": [0], "datatype": "INT64", "data": []},
            {"name": "exclude_item", "shape": [0], "datatype": "INT64", "data": []},
        ]
    }
    scores = {"inputs": infer["inputs"][:1]}
    asked = [
        ("/recommend", {"user": user}, 422),
        ("/recommend", {"user": user, "diversity": 0.5, "categories": ["Drama"]}, 422),
        ("/recommend", {"user": int(tables.user_ids[1])}, 200),
        ("/score", {"pairs": [[user, 0], [20, 0]]}, 422),
        ("/similar", {"item": 0}, 200),
        ("/v2/models/cflightning/infer", infer, 422),
        ("/v2/models/cflightning-scores/infer", scores, 422),
    ]
    with start(ServerState(Settings(folder, verify=False))) as client:
        for route, question, status in asked:
            reply = client.post(route, json=question)
            assert reply.status_code == status, (route, reply.text)
            assert "nan" not in reply.text.lower()
            assert isinstance(reply, httpx.Response) and reply.json()
        assert client.get("/metrics").status_code == 200
    assert not [record for record in caplog.records if record.exc_info]
    assert "must be finite numbers" in caplog.text
