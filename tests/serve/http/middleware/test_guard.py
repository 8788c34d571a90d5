"""ApiKeys, sizes, time, and requests that are none."""

import json
import socket
import threading
import time
from contextlib import ExitStack, suppress

import pytest

from cflightning_serve import InputError, Scorer
from cflightning_serve.http.api_keys import ApiKeys
from cflightning_serve.http.connection.connection import MAX_HEAD
from cflightning_serve.http.serving.executor import Executor
from cflightning_serve.http.serving.state import ServerState
from cflightning_serve.http.settings import Limits, Settings

POST = b"POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
JSON = {"Content-Type": "application/json"}
KEY, OTHER = "0123456789abcdef", "another key: zoë"


@pytest.fixture
def keyed(bundle, start, tmp_path):
    file = tmp_path / "keys"
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
def test_who_has_a_key_may_ask(keyed, headers):
    assert keyed.post("/recommend", json={"user": 10}, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": ""},
        {"X-API-Key": KEY[:-1]},
        {"X-API-Key": KEY + "0"},
        {"X-API-Key": f"{KEY}, {KEY}"},
        {"Authorization": KEY},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": "Bearer"},
    ],
)
def test_who_has_none_may_not(keyed, headers):
    for method, path in (("POST", "/recommend"), ("GET", "/metrics"), ("GET", "/openapi.json"), ("GET", "/nothing"),
                         ("GET", "/v2"), ("GET", "/v2/models/cflightning"), ("POST", "/v2/models/cflightning/infer"),
                         ("GET", "//v2/health/live"), ("GET", "/v2/health")):  # fmt: skip
        reply = keyed.request(method, path, headers=headers)
        assert reply.status_code == 401, path
        assert reply.headers["www-authenticate"] == "Bearer"
        assert "error" in reply.json()


def test_health_needs_no_key(keyed):
    assert keyed.get("/v2/health/live").status_code == 200
    assert keyed.get("/v2/health/ready").status_code == 200


def test_the_description_says_that_a_key_is_needed(keyed, client):
    assert keyed.get("/openapi.json", headers={"X-API-Key": KEY}).json()["security"] == [{"bearer": []}, {"key": []}]
    assert "security" not in client.get("/openapi.json").json()


@pytest.mark.parametrize("limit", ["body", "ids", "k", "seconds", "concurrent", "connections", "held"])
def test_limits_are_above_zero(limit):
    for value in (0, -1, float("nan")):
        with pytest.raises(InputError, match=f"{limit} must be above 0"):
            Limits(**{limit: value})


@pytest.fixture
def small(bundle, start):
    with start(ServerState(Settings(bundle, limits=Limits(body=1000)))) as client:
        yield client


def test_bodies_may_not_be_larger_than_the_limit(small):
    body = b'{"user": 10}'
    assert small.post("/recommend", content=body.ljust(1000), headers=JSON).status_code == 200
    for path in ("/recommend", "/v2/models/cflightning/infer", "/nothing"):
        reply = small.post(path, content=body.ljust(1001), headers=JSON)
        assert reply.status_code == 413
        assert "1,000 bytes" in reply.text


def test_nor_in_chunks_of_unstated_length(small):
    for path in ("/recommend", "/v2/models/cflightning/infer"):
        reply = small.post(path, content=(b" " * 100 for _ in range(100_000)), headers=JSON)
        assert reply.status_code == 413
    assert small.post("/recommend", content=iter([b'{"user"', b": 10}"]), headers=JSON).status_code == 200


def raw(client, data, wait=0.5):
    """What a server answers to bytes."""
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=wait) as connection:
        connection.sendall(data)
        answer = b""
        try:
            while part := connection.recv(65536):
                answer += part
        except TimeoutError:
            pass
        return answer


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        POST + b"Content-Length: -1\r\n\r\n",
        POST + b"Content-Length: x\r\n\r\n",
        POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        POST + b"Content-Length: 99999999999999999999\r\nConnection: close\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /%ff%00 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET /v2/models/%ff/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    ],
)
def test_requests_that_are_none(client, data):
    answer = raw(client, data)
    assert answer.startswith(b"HTTP/1.1 4"), answer
    assert b"Traceback" not in answer
    assert b"application/json" in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    assert client.get("/v2/health/live").status_code == 200


@pytest.mark.parametrize("piece", [b"a" * 10_000, b"a: b\r\n" * 2_000], ids=["long", "many"])
def test_headers_without_end_are_refused(client, piece):
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=5) as connection:
        connection.sendall(b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nA: b\r\nC: ")
        sent = 0
        with suppress(OSError):  # it hangs up
            while sent < 100 * MAX_HEAD:
                sent += connection.send(piece)
        assert sent < 100 * MAX_HEAD
    headers = b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nA: "
    assert raw(client, headers + b"a" * (MAX_HEAD - 1_000) + b"\r\n\r\n").startswith(b"HTTP/1.1 200")
    refused = raw(client, headers + b"a" * MAX_HEAD)
    assert refused.startswith(b"HTTP/1.1 431")
    assert json.loads(refused.partition(b"\r\n\r\n")[2])["error"]["code"] == "headers"


def test_a_large_body_is_no_header(client):
    question = b'{"user": 10, "k": 1}' + b" " * 4 * MAX_HEAD
    one = POST + b"Content-Length: %d\r\n\r\n" % len(question) + question
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=5) as connection:
        for _ in range(3):  # the end of one and the beginning of the next arrive together
            connection.sendall(one[: len(one) // 2])
            connection.sendall(one[len(one) // 2 :] + one[:40])
            connection.sendall(one[40:])
            answers = b""
            while answers.count(b"known_user") < 2:
                answers += connection.recv(65536)
            assert answers.count(b"HTTP/1.1 200") == 2


@pytest.mark.parametrize(
    ("said", "answer"), [(b"", b""), (b"GET /v2 HTTP/1.1\r\nHos", b"HTTP/1.1 408")], ids=["nothing", "a part"]
)
def test_headers_that_do_not_come_are_not_waited_for(bundle, start, said, answer):
    with (
        start(ServerState(Settings(bundle, limits=Limits(seconds=0.3)))) as client,
        socket.create_connection((client.base_url.host, client.base_url.port), timeout=5) as connection,
    ):
        connection.sendall(said)
        got = connection.recv(65536)
        assert got.startswith(answer) and bool(got) == bool(answer)
        with suppress(ConnectionResetError):
            assert connection.recv(65536) == b""


def test_who_asks_again_after_the_limit_of_seconds_is_answered(bundle, start):
    question = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with (
        start(ServerState(Settings(bundle, limits=Limits(seconds=0.3)))) as client,
        socket.create_connection((client.base_url.host, client.base_url.port), timeout=5) as connection,
    ):
        for part in (question[:9], question[9:] + question[:9], question[9:], question):
            connection.sendall(part)
            time.sleep(0.2)
        answers = b""
        while answers.count(b"true") < 3:
            answers += connection.recv(65536)


@pytest.mark.parametrize(
    ("start_of", "piece"), [(b"0\r\nA: ", b"a" * 10_000), (b"0\r\n", b"a: b\r\n" * 2_000), (b"1;a", b"a" * 10_000)]
)
def test_nothing_goes_on_behind_a_body(small, start_of, piece):
    with socket.create_connection((small.base_url.host, small.base_url.port), timeout=5) as connection:
        connection.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n" + start_of)
        sent = 0
        with suppress(OSError):  # it hangs up
            while sent < 500 * MAX_HEAD:
                sent += connection.send(piece)
        assert sent < 500 * MAX_HEAD


def test_headers_behind_a_body_in_chunks_change_nothing(keyed):
    question = b'{"user": 10}'
    asked = POST + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = raw(keyed, asked + b"%x\r\n%s\r\n0\r\nX-API-Key: %s\r\n\r\n" % (len(question), question, KEY.encode()))
    assert answer.startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready"])
def test_health_may_be_asked_for_its_head(keyed, path):
    reply = keyed.head(path)
    assert (reply.status_code, reply.content) == (200, b"")


def test_a_body_that_never_ends_is_cut_off(bundle, start):
    with start(ServerState(Settings(bundle, limits=Limits(seconds=0.3)))) as client:
        answer = raw(
            client,
            POST + b"Content-Length: 12\r\n\r\n{",
        )
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"not answered within 0.3 seconds" in answer
        assert b"\r\nconnection: close\r\n" in answer.lower()


def test_a_question_that_takes_too_long_is_cut_off(bundle, start, complete_scorer):
    scorer, done = complete_scorer(Scorer.load(bundle)), threading.Event()
    quick = scorer.recommend

    def slow(*given, **more):
        done.wait(5)
        return quick(*given, **more)

    scorer.recommend = slow
    state = ServerState(Settings(bundle, limits=Limits(seconds=0.2)), scorer, executor=Executor(inline_limit=0))
    with start(state) as client:
        began = time.monotonic()
        reply = client.post("/recommend", json={"user": 10})
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "time")
        assert time.monotonic() - began < 3
        assert client.get("/v2/health/live").status_code == 200  # the event loop is free
        done.set()
        assert client.post("/recommend", json={"user": 10}).status_code == 200
        assert 'status="503"' in client.get("/metrics").text


def test_no_more_requests_at_once_than_the_limit(bundle, start, complete_scorer):
    scorer, begun, done = complete_scorer(Scorer.load(bundle)), threading.Event(), threading.Event()
    quick = scorer.recommend

    def slow(*given, **more):
        begun.set()
        done.wait(20)
        return quick(*given, **more)

    scorer.recommend = slow
    state = ServerState(Settings(bundle, limits=Limits(concurrent=1)), scorer, executor=Executor(inline_limit=0))
    with start(state) as client:
        answers = []
        one = threading.Thread(target=lambda: answers.append(client.post("/recommend", json={"user": 10})))
        one.start()
        assert begun.wait(20)
        reply = client.post("/recommend", json={"user": 10})
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "busy")
        assert reply.headers["retry-after"] == "1"
        assert client.get("/v2/health/live").status_code == 200
        done.set()
        one.join(20)
        assert answers[0].status_code == 200
        assert client.post("/recommend", json={"user": 10}).status_code == 200


def test_waiting_for_bodies_is_no_work(bundle, start):
    with start(ServerState(Settings(bundle, limits=Limits(concurrent=1)))) as client, ExitStack() as slow:
        for _ in range(20):
            one = slow.enter_context(socket.create_connection((client.base_url.host, client.base_url.port)))
            one.sendall(POST + b"Content-Length: 12\r\n\r\n{")
        assert [client.post("/recommend", json={"user": 10}).status_code for _ in range(3)] == [200] * 3


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/docs", 404),
        ("POST", "/recommend/", 404),
        ("GET", "/recommend", 405),
        ("PUT", "/score", 405),
        ("POST", "/metrics", 405),
        ("DELETE", "/v2", 405),
        ("PATCH", "/v2", 405),
    ],
)
def test_routes_and_methods_that_are_not_there(client, method, path, status):
    reply = client.request(method, path)
    assert reply.status_code == status
    assert "openapi" in str(reply.json()["error"])
    if status == 405:
        assert reply.headers["allow"]
