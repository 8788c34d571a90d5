"""For which names a server answers, which pages may ask it, and what a body must say of itself."""

import gc
import gzip
import json
import socket
import time
import zlib

import pytest

from cflightning_serve import InputError
from cflightning_serve.http.errors import ApiError
from cflightning_serve.http.serving.state import ServerState
from cflightning_serve.http.settings import Limits, Settings

QUESTION = {"user": 10}
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:80", "app.localhost", "127.0.0.1:1", "127.9.9.9", "[::1]:8000", "localhost.", "0.0.0.0"],
)
def test_names_of_loopback_are_answered(client, host):
    assert client.post("/recommend", json=QUESTION, headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "localhost.evil.example", "evillocalhost", "10.0.0.1", "[::2]"],
)
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/recommend"), ("GET", "/"), ("GET", "/metrics"), ("GET", "/v2"), ("GET", "/nothing")]
)
def test_other_names_are_not(client, host, method, path):
    reply = client.request(method, path, headers={"Host": host}, json=QUESTION)
    assert reply.status_code == 421
    assert "--allow-host" in str(reply.json()["error"])


@pytest.mark.parametrize("host", ["", "a b", "localhost/x", "localhost, evil.example", "user@localhost", "[localhost]"])
def test_what_is_no_name_is_refused(client, host):
    assert client.get("/v2", headers={"Host": host}).status_code in (400, 421)


def test_health_is_told_by_any_name(client):
    """Platforms ask by an address of theirs, or by none."""
    assert client.get("/v2/health/live", headers={"Host": "10.1.2.3:8000"}).status_code == 200


@pytest.mark.parametrize(
    ("line", "hosts", "status"),
    [
        (b"GET /v2 HTTP/1.1", 1, b"200"),
        (b"GET /v2 HTTP/1.1", 0, b"400"),
        (b"GET /v2 HTTP/1.1", 2, b"400"),
        (b"GET /v2 HTTP/1.0", 0, b"200"),  # which no browser speaks
        (b"GET /v2 HTTP/1.0", 2, b"400"),
    ],
)
def test_the_host_is_said_once(client, line, hosts, status):
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=20) as connection:
        connection.sendall(b"\r\n".join([line, *[b"Host: localhost"] * hosts, b"", b""]))
        assert connection.recv(1 << 16).split()[1] == status


def test_names_can_be_allowed(bundle, start):
    hosts = ("shop.example", "*.internal", "10.0.0.1")
    with start(ServerState(Settings(bundle, hosts=hosts))) as client:
        for host in ("shop.example:80", "SHOP.example", "a.b.internal", "10.0.0.1:80", "localhost"):
            assert client.get("/v2", headers={"Host": host}).status_code == 200, host
        for host in ("www.shop.example", "internal", "evilinternal", "10.0.0.2"):
            assert client.get("/v2", headers={"Host": host}).status_code == 421, host
    with start(ServerState(Settings(bundle, hosts=("*",)))) as client:
        assert client.get("/v2", headers={"Host": "evil.example"}).status_code == 200


@pytest.mark.parametrize("host", ["", "http://shop.example", "shop.example:80", "a b", "*shop"])
def test_names_that_are_none_are_refused(bundle, host):
    with pytest.raises(InputError, match="allow-host: must be a name"):
        Settings(bundle, hosts=(host,))


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonx", ""],
)
@pytest.mark.parametrize("path", ["/recommend", "/v2/models/cflightning/infer"])
def test_bodies_that_a_page_elsewhere_can_send_are_refused(client, kind, path):
    reply = client.post(path, content=json.dumps(QUESTION), headers={"Content-Type": kind} if kind else {})
    assert reply.status_code == 415
    assert "content-type: must be application/json" in str(reply.json()["error"])


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8", "application/vnd.api+json"])
def test_json_is_taken_by_all_its_names(client, kind):
    assert client.post("/recommend", content=json.dumps(QUESTION), headers={"Content-Type": kind}).status_code == 200


def test_pages_elsewhere_may_ask_where_they_are_let(bundle, client, start):
    asked = {
        "Origin": "https://shop.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type, x-api-key",
    }
    assert client.options("/recommend", headers=asked).status_code == 405
    with start(ServerState(Settings(bundle, origins=("https://shop.example",)))) as open_:
        reply = open_.options("/recommend", headers=asked)
        assert reply.status_code == 200
        assert reply.headers["access-control-allow-origin"] == "https://shop.example"
        for question, status in ((QUESTION, 200), ({}, 422)):  # errors can be read as well
            reply = open_.post("/recommend", json=question, headers={"Origin": "https://shop.example"})
            assert reply.status_code == status
            assert reply.headers["access-control-allow-origin"] == "https://shop.example"
        reply = open_.post("/recommend", json=QUESTION, headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in reply.headers


@pytest.mark.parametrize("origin", ["shop.example", "https://shop.example/", "null", "https://*.example"])
def test_origins_that_are_none_are_refused(bundle, origin):
    with pytest.raises(InputError, match="cors-origin: must be like"):
        Settings(bundle, origins=(origin,))


@pytest.fixture
def small(bundle, start):
    with start(ServerState(Settings(bundle, limits=Limits(body=1000)))) as client:
        yield client


def packed(client, content, path="/recommend", packing="gzip"):
    return client.post(path, content=content, headers={**JSON, "Content-Encoding": packing})


@pytest.mark.parametrize("packing", ["gzip", "GZIP", "x-gzip"])
def test_packed_bodies_are_unpacked(small, packing):
    assert packed(small, gzip.compress(json.dumps(QUESTION).encode()), packing=packing).json()["known_user"]
    assert packed(small, json.dumps(QUESTION).encode(), packing="identity").json()["known_user"]


def test_packed_bodies_may_not_become_larger_than_the_limit(small):
    body = json.dumps(QUESTION).encode()
    assert packed(small, gzip.compress(body.ljust(1000))).status_code == 200
    for size in (1001, 10_000_000):
        content = gzip.compress(body.ljust(size))[:1000]
        reply = packed(small, content)
        assert reply.status_code == 413, size


def test_what_bodies_are_unpacked_to_counts_as_held(bundle, start):
    with start(ServerState(Settings(bundle, limits=Limits(body=200_000, held=150_000)))) as client:
        body = json.dumps(QUESTION).encode()
        assert packed(client, gzip.compress(body.ljust(140_000))).status_code == 200
        reply = packed(client, gzip.compress(body.ljust(160_000)))
        assert (reply.status_code, reply.json()["error"]["code"]) == (422, "limit")
        assert packed(client, gzip.compress(body.ljust(140_000))).status_code == 200  # all has been given back


@pytest.mark.parametrize(
    "content",
    [b"{}", gzip.compress(b"x" * 2000), gzip.compress(b"{}"), gzip.compress(b"[")],
    ids=["not packed", "too large", "incomplete", "no JSON"],
)
def test_nothing_of_a_refused_request_waits_for_the_collection_of_garbage(small, content):
    gc.collect()
    gc.disable()
    try:
        assert packed(small, content).status_code >= 400
        time.sleep(0.1)  # for what the server does behind its answer
        assert not [one for one in gc.get_objects() if type(one) is ApiError]
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(QUESTION).encode(),
        gzip.compress(json.dumps(QUESTION).encode())[:-1],
        gzip.compress(json.dumps(QUESTION).encode()) + b"more",
        zlib.compress(json.dumps(QUESTION).encode()),
    ],
    ids=["plain", "cut", "more", "zlib"],
)
def test_what_is_not_packed_as_it_says_is_refused(small, content):
    reply = packed(small, content)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "encoding")


@pytest.mark.parametrize("packing", ["br", "deflate", "zstd", "gzip, gzip"])
def test_other_packings_are_named(small, packing):
    reply = packed(small, b"{}", packing=packing)
    assert reply.status_code == 415
    assert "must be gzip" in reply.json()["error"]["message"]
