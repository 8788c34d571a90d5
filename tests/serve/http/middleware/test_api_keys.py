"""Requests with and without API keys."""

import pytest

from cflightning_serve.http.api_keys import ApiKeys
from cflightning_serve.http.serving.state import ServerState
from cflightning_serve.http.settings import Settings

KEY, OTHER = "0123456789abcdef", "another key: zoë"


@pytest.fixture(scope="module")
def keyed(bundle, start, tmp_path_factory):
    """Client of a server with two keys."""
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_bytes(f"{KEY}\r\n\n{OTHER}\n".encode())
    file.chmod(0o600)
    with start(ServerState(Settings(bundle, keys=ApiKeys(file)))) as client:
        yield client


@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": KEY},
        {"Authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer  {KEY}"},
        {"X-API-Key": OTHER.encode()},
    ],
)
def test_requests_with_a_valid_key_are_answered(keyed, headers):
    assert keyed.post("/recommend", json={"user": 10}, headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/recommend"),
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
        ("GET", "/nothing"),
        ("GET", "/v2"),
        ("GET", "/v2/models/cflightning"),
        ("POST", "/v2/models/cflightning/infer"),
        ("GET", "//v2/health/live"),
        ("GET", "/v2/health"),
    ],
)
def test_all_routes_need_a_key(keyed, method, path):
    response = keyed.request(method, path)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert "error" in response.json()


@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": ""},
        {"X-API-Key": KEY[:-1]},
        {"X-API-Key": KEY + "0"},
        {"X-API-Key": f"{KEY}, {KEY}"},
        {"Authorization": KEY},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": "Bearer"},
    ],
)
def test_invalid_keys_are_refused(keyed, headers):
    assert keyed.get("/metrics", headers=headers).status_code == 401


def test_trailers_are_no_headers(keyed, exchange):
    body = b'{"user": 10}'
    head = b"POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
    chunked = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n" % (len(body), body)
    response = exchange(keyed, head + chunked + b"X-API-Key: %s\r\n\r\n" % KEY.encode())
    assert response.startswith(b"HTTP/1.1 401")
