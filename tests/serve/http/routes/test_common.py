"""Validation of request bodies, and errors, on all JSON routes."""

import pytest

from cflightning_serve import BundleError, Scorer
from cflightning_serve.http.serving.state import ServerState
from cflightning_serve.http.settings import Settings


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    [
        ("/recommend", {}, "user: Field required"),
        ("/recommend", {"user": "a"}, "user ids: must be integers"),
        ("/recommend", {"user": 1.5}, "user: Input should be a valid integer or Input should be a valid string"),
        ("/recommend", {"user": True}, "user: "),
        ("/recommend", {"user": None}, "user: "),
        ("/recommend", {"user": [10]}, "user: "),
        ("/recommend", {"user": 2**63}, "must fit into 64 bits"),
        ("/recommend", {"user": 10, "k": 0}, "k: "),
        ("/recommend", {"user": 10, "k": "5"}, "k: "),
        ("/recommend", {"user": 10, "k": 1001}, "k: must not exceed 1,000"),
        ("/recommend", {"user": 10, "exclude": 5}, "exclude: "),
        ("/recommend", {"user": 10, "exclude": ["a"]}, "excluded item ids: must be integers"),
        ("/recommend", {"user": 10, "exclude": [None]}, "exclude.0: "),
        ("/recommend", {"user": 10, "exlude": []}, "exlude: Extra inputs"),
        ("/recommend", {"user": 10, "diversity": 2}, "diversity: "),
        ("/score", {"pairs": [[10]]}, "pairs.0"),
        ("/score", {"pairs": [[10, 0, 1]]}, "pairs.0"),
        ("/score", {"pairs": [[10, "0"]]}, "item ids: must be integers"),
        ("/score", {"pairs": {}}, "pairs: "),
        ("/similar", {"item": 0, "k": -1}, "k: "),
        ("/fold-in", {"ratings": [[0, "5"]]}, "ratings.0.1: "),
        ("/fold-in", {"ratings": [[0, 1e300]]}, "ratings.0.1: "),
        ("/fold-in", {"ratings": [[0]]}, "ratings.0"),
        ("/explain", {"user": 10}, "item: Field required"),
    ],
)
def test_invalid_requests_are_refused(full_client, post, path, body, reason):
    code, message = post(full_client, path, 422, **body)
    assert code in ("input", "limit")
    assert reason in message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"nothing",
        b'{"user": 10} x',
        b"\xff\xfe",
        b'{"user": "\\ud800"}',
        b"[" * 100_000,
        b'{"user": ' + b"9" * 5000 + b"}",
        b'{"user": 10, "k": NaN}',
    ],
)
def test_bodies_that_are_not_valid_json_are_refused(client, body):
    response = client.post("/recommend", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code in (400, 422)
    assert response.json()["error"]["code"] in ("json", "input")
    assert len(response.content) < 1000


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/score", {"pairs": [[]] * 100}),
        *(("/recommend", {"user": 1, name: [{}] * 100}) for name in ("exclude", "allow", "deny", "categories")),
        ("/fold-in", {"ratings": [[]] * 100}),
        ("/fold-in", {"ratings": [], "exclude": [{}] * 100}),
        ("/explain", {"item": 1, "ratings": [[]] * 100}),
        ("/v2/models/cflightning/infer", {"inputs": [{}] * 100}),
        ("/v2/models/cflightning/infer", {"inputs": [], "outputs": [{}] * 100}),
        ("/v2/models/cflightning/infer", {"inputs": [{"name": "", "datatype": "", "shape": [{}] * 100}]}),
    ],
)
def test_only_the_first_error_of_a_list_is_reported(client, path, body):
    response = client.post(path, json=body)  # each error takes a kilobyte until the response is sent
    assert response.status_code == 422
    assert "more" not in response.text and ".1." not in response.text


def test_details_of_a_bundle_error_are_logged_and_hidden(bundle, start, complete_scorer, post, caplog):
    scorer = complete_scorer(Scorer.load(bundle))

    def broken(*_, **__):
        raise BundleError("/a/secret/folder: the graph failed")

    scorer.recommend = broken
    with start(ServerState(Settings(bundle), scorer)) as client:
        code, message = post(client, "/recommend", 503, user=10)
    assert (code, "secret" in message) == ("bundle", False)
    assert "secret" in caplog.text


def test_details_of_an_unexpected_exception_are_logged_and_hidden(bundle, start, complete_scorer, caplog):
    scorer = complete_scorer(Scorer.load(bundle))

    def broken(*_, **__):
        raise ZeroDivisionError("secret")

    scorer.recommend = broken
    with start(ServerState(Settings(bundle), scorer)) as client:
        response = client.post("/recommend", json={"user": 10})
        assert client.post("/similar", json={"item": 0}).status_code == 200
    assert response.status_code == 500
    assert response.json() == {"error": {"code": "internal", "message": "the server failed; its log has the reason"}}
    assert "ZeroDivisionError" in caplog.text
