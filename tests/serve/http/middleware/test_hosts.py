"""The check of the Host header."""

import pytest

from cflightning_serve.http.serving.state import ServerState
from cflightning_serve.http.settings import Settings

BODY = {"user": 10}


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:80", "app.localhost", "127.0.0.1:1", "127.9.9.9", "[::1]:8000", "localhost.", "0.0.0.0"],
)
def test_names_of_loopback_are_accepted(client, host):
    assert client.post("/recommend", json=BODY, headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "localhost.evil.example", "evillocalhost", "10.0.0.1", "[::2]"],
)
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/recommend"), ("GET", "/"), ("GET", "/metrics"), ("GET", "/v2"), ("GET", "/nothing")]
)
def test_other_names_are_refused(client, host, method, path):
    response = client.request(method, path, headers={"Host": host}, json=BODY)
    assert response.status_code == 421
    assert "--allow-host" in str(response.json()["error"])


@pytest.mark.parametrize("host", ["", "a b", "localhost/x", "localhost, evil.example", "user@localhost", "[localhost]"])
def test_invalid_names_are_refused(client, host):
    assert client.get("/v2", headers={"Host": host}).status_code in (400, 421)


@pytest.mark.parametrize(
    ("line", "hosts", "status"),
    [
        (b"GET /v2 HTTP/1.1", 1, b"200"),
        (b"GET /v2 HTTP/1.1", 0, b"400"),
        (b"GET /v2 HTTP/1.1", 2, b"400"),
        (b"GET /v2 HTTP/1.0", 0, b"200"),  # no browser uses it
        (b"GET /v2 HTTP/1.0", 2, b"400"),
    ],
)
def test_there_is_exactly_one_host_header(client, connect, line, hosts, status):
    with connect(client) as connection:
        connection.sendall(b"\r\n".join([line, *[b"Host: localhost"] * hosts, b"", b""]))
        assert connection.recv(1 << 16).split()[1] == status


def test_further_names_can_be_allowed(bundle, start):
    hosts = ("shop.example", "*.internal", "10.0.0.1")
    with start(ServerState(Settings(bundle, hosts=hosts))) as client:
        for host in ("shop.example:80", "SHOP.example", "a.b.internal", "10.0.0.1:80", "localhost"):
            assert client.get("/v2", headers={"Host": host}).status_code == 200, host
        for host in ("www.shop.example", "internal", "evilinternal", "10.0.0.2"):
            assert client.get("/v2", headers={"Host": host}).status_code == 421, host
    with start(ServerState(Settings(bundle, hosts=("*",)))) as client:
        assert client.get("/v2", headers={"Host": "evil.example"}).status_code == 200
