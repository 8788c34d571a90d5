"""Type, size and compression of request bodies."""

import gc
import gzip
import json
import time
import zlib

import pytest

from cflightning_serve.http.errors import ApiError
from cflightning_serve.http.serving.state import ServerState
from cflightning_serve.http.settings import Limits, Settings

BODY = json.dumps({"user": 10}).encode()
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def small(bundle, start):
    """Client of a server that accepts bodies of 1,000 bytes."""
    with start(ServerState(Settings(bundle, limits=Limits(body=1000)))) as client:
        yield client


def post_encoded(client, content, encoding="gzip"):
    return client.post("/recommend", content=content, headers={**JSON, "Content-Encoding": encoding})


@pytest.mark.parametrize(
    "media_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonx", ""],
)
@pytest.mark.parametrize("path", ["/recommend", "/v2/models/cflightning/infer"])
def test_bodies_that_pages_of_other_origins_can_send_are_refused(client, media_type, path):
    response = client.post(path, content=BODY, headers={"Content-Type": media_type} if media_type else {})
    assert response.status_code == 415
    assert "content-type: must be application/json" in str(response.json()["error"])


@pytest.mark.parametrize(
    "media_type", ["application/json", "Application/JSON; charset=utf-8", "application/vnd.api+json"]
)
def test_json_is_accepted_by_all_its_names(client, media_type):
    assert client.post("/recommend", content=BODY, headers={"Content-Type": media_type}).status_code == 200


def test_bodies_are_limited(small):
    assert small.post("/recommend", content=BODY.ljust(1000), headers=JSON).status_code == 200
    for path in ("/recommend", "/v2/models/cflightning/infer", "/nothing"):
        response = small.post(path, content=BODY.ljust(1001), headers=JSON)
        assert response.status_code == 413
        assert "1,000 bytes" in response.text


def test_bodies_in_chunks_are_limited(small):
    for path in ("/recommend", "/v2/models/cflightning/infer"):
        response = small.post(path, content=(b" " * 100 for _ in range(100_000)), headers=JSON)
        assert response.status_code == 413
    assert small.post("/recommend", content=iter([b'{"user"', b": 10}"]), headers=JSON).status_code == 200


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip"])
def test_gzip_bodies_are_decompressed(small, encoding):
    assert post_encoded(small, gzip.compress(BODY), encoding).json()["known_user"]
    assert post_encoded(small, BODY, "identity").json()["known_user"]


def test_decompressed_bodies_are_limited(small):
    assert post_encoded(small, gzip.compress(BODY.ljust(1000))).status_code == 200
    for size in (1001, 10_000_000):
        assert post_encoded(small, gzip.compress(BODY.ljust(size))[:1000]).status_code == 413, size


def test_decompressed_bodies_count_in_the_memory_budget(bundle, start):
    with start(ServerState(Settings(bundle, limits=Limits(body=200_000, memory=150_000)))) as client:
        assert post_encoded(client, gzip.compress(BODY.ljust(140_000))).status_code == 200
        response = post_encoded(client, gzip.compress(BODY.ljust(160_000)))
        assert (response.status_code, response.json()["error"]["code"]) == (422, "limit")
        assert post_encoded(client, gzip.compress(BODY.ljust(140_000))).status_code == 200  # all has been released


@pytest.mark.parametrize("size", [100_000, 140_000])
def test_large_bodies_count_in_the_memory_budget_with_their_size(bundle, start, size):
    with start(ServerState(Settings(bundle, limits=Limits(body=150_000, memory=150_000)))) as client:
        for _ in range(3):
            assert client.post("/recommend", content=BODY.ljust(size), headers=JSON).status_code == 200


@pytest.mark.parametrize(
    "content",
    [b"{}", gzip.compress(b"x" * 2000), gzip.compress(b"{}"), gzip.compress(b"[")],
    ids=["not gzip", "too large", "incomplete", "not JSON"],
)
def test_nothing_of_a_refused_request_is_left_to_the_garbage_collector(small, content):
    gc.collect()
    gc.disable()
    try:
        assert post_encoded(small, content).status_code >= 400
        time.sleep(0.1)  # the server finishes after its response
        assert not [thing for thing in gc.get_objects() if type(thing) is ApiError]
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "content",
    [BODY, gzip.compress(BODY)[:-1], gzip.compress(BODY) + b"more", zlib.compress(BODY)],
    ids=["plain", "cut", "more", "zlib"],
)
def test_bodies_that_are_not_one_gzip_member_are_refused(small, content):
    response = post_encoded(small, content)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "encoding")


@pytest.mark.parametrize("encoding", ["br", "deflate", "zstd", "gzip, gzip"])
def test_other_encodings_are_refused(small, encoding):
    response = post_encoded(small, b"{}", encoding)
    assert response.status_code == 415
    assert "must be gzip" in response.json()["error"]["message"]
