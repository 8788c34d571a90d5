"""What comes over one connection, byte by byte, and how many connections there may be."""

import json
import re
import socket
import time
from contextlib import ExitStack, suppress

import pytest

from cflightning_serve.http.serving.state import ServerState
from cflightning_serve.http.settings import Limits, Settings

HEALTH = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"


def question(user, *headers, path="/recommend"):
    body = json.dumps({"user": user, "k": 1}).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers]
    return "\r\n".join(lines).encode() + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def connect(client, timeout=20):
    return socket.create_connection((client.base_url.host, client.base_url.port), timeout=timeout)


def exchange(client, data, until, count=1):
    """Send bytes and read until something has come so many times, or the server closes."""
    answer = b""
    with connect(client) as connection:
        connection.sendall(data)
        while answer.count(until) < count and (part := connection.recv(1 << 16)):
            answer += part
    return answer


def statuses(answer):
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


@pytest.mark.parametrize(
    "headers",
    [
        ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"),
        ("Connection: keep-alive, upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x", "Sec-WebSocket-Version: 13"),
        ("Upgrade: h2c", "Connection: Upgrade"),
    ],
    ids=["curl --http2", "websocket", "short"],
)
@pytest.mark.parametrize("pieces", ["whole", "bytes"])
def test_a_wish_for_another_protocol_is_ignored_and_the_body_is_read(client, headers, pieces):
    data = question(10, *headers) + HEALTH
    with connect(client) as connection:
        for part in [data] if pieces == "whole" else [data[at : at + 1] for at in range(len(data))]:
            connection.sendall(part)
        answer = b""
        while b'{"live":true}' not in answer:
            answer += connection.recv(1 << 16)
    assert statuses(answer) == [200, 200]
    assert answer.count(b"known_user") == 1


def test_nothing_hides_in_the_body_behind_an_upgrade(client):
    """A proxy that reads the length as it is sees one request; so must the server."""
    hidden = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = b"POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    upgrade = b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: %d\r\n\r\n" % len(hidden)
    with connect(client) as connection:
        connection.sendall(head + upgrade)
        time.sleep(0.1)
        connection.sendall(hidden)
        connection.sendall(HEALTH)
        answer = b""
        while b'{"live":true}' not in answer:
            answer += connection.recv(1 << 16)
    assert statuses(answer) == [400, 200]  # the body is no JSON
    assert b"cflightning_requests" not in answer


def test_a_tunnel_is_refused(client):
    answer = exchange(client, b"CONNECT localhost:1 HTTP/1.1\r\nHost: localhost\r\n\r\n" + HEALTH, b"\x00")
    assert statuses(answer) == [400]


def test_a_folded_header_does_not_become_two(client):
    data = question(10, "Connection: Upgrade", "Upgrade: h2c", "A: b\r\n X-API-Key: c")
    assert statuses(exchange(client, data, b"}")) in ([200], [400])


def test_many_requests_at_once_are_all_answered_in_order(client):
    count = 2000
    data = b"".join(question(10, path="/recommend" if at % 2 else "/nothing") for at in range(count))
    answer = b""
    with connect(client, 60) as connection:
        connection.setblocking(False)
        sent, ends = 0, time.monotonic() + 60
        while answer.count(b"HTTP/1.1 ") < count or not answer.endswith(b"}"):
            assert time.monotonic() < ends
            with suppress(BlockingIOError):
                sent += connection.send(data[sent : sent + (1 << 16)])
            with suppress(BlockingIOError):
                part = connection.recv(1 << 16)
                assert part, statuses(answer)[-3:]
                answer += part
    assert statuses(answer) == [404, 200] * (count // 2)


def test_what_is_no_http_is_refused_behind_the_answers_before_it(client):
    answer = exchange(client, question(10) + HEALTH + b"nonsense\r\n\r\n" + HEALTH, b"\x00")
    assert statuses(answer) == [200, 200, 400]


def test_a_body_that_breaks_is_refused_behind_the_answers_before_it(client):
    broken = b"POST /recommend HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    assert statuses(exchange(client, question(10) + broken, b"\x00")) == [200, 400]
    assert statuses(exchange(client, broken, b"\x00")) in ([400], [415])


@pytest.fixture
def few(bundle, start):
    with start(ServerState(Settings(bundle, limits=Limits(connections=8, seconds=30)))) as client:
        yield client


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET /v2 HTTP/1.1\r\nHos",
        b"POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{",
        HEALTH,
    ],
    ids=["nothing", "headers", "body", "again"],
)
def test_connections_that_wait_make_room_for_others(few, said):
    assert few.get("/v2/health/live").status_code == 200
    with ExitStack() as crowd:
        crowded = []
        for _ in range(40):
            crowded.append(crowd.enter_context(connect(few)))
            crowded[-1].sendall(said)
        assert statuses(exchange(few, HEALTH, b"}")) == [200]
        assert statuses(exchange(few, question(10), b"}")) == [200]
        ended = 0
        for one in crowded:
            one.settimeout(0.01)
            with suppress(TimeoutError):
                try:
                    while one.recv(1 << 16):
                        pass
                    ended += 1
                except ConnectionResetError:
                    ended += 1
        assert 32 <= ended < 40


def test_a_client_that_is_served_keeps_its_connection(few):
    with connect(few) as regular, ExitStack() as crowd:
        for _ in range(30):
            crowd.enter_context(connect(few))
            regular.sendall(HEALTH)
            answer = b""
            while b"live" not in answer:
                answer += (part := regular.recv(1 << 16))
                assert part


@pytest.fixture
def wide(bundle, start):
    """Of a server with large answers, which waits four seconds for who reads them."""
    with start(ServerState(Settings(bundle, limits=Limits(seconds=4, ids=40_000)))) as client:
        yield client


def large():
    """A request whose answer takes more than any socket's buffer."""
    users = {"name": "user", "shape": [40_000], "datatype": "INT64", "data": [10] * 40_000}
    rest = [
        {"name": "k", "shape": [1], "datatype": "INT64", "data": [1000]},
        {"name": "exclude_user", "shape": [0], "datatype": "INT64", "data": []},
        {"name": "exclude_item", "shape": [0], "datatype": "INT64", "data": []},
    ]
    body = json.dumps({"inputs": [users, *rest], "outputs": [{"name": "score"}]}).encode()
    head = b"POST /v2/models/cflightning/infer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def length(head):
    return int(re.search(rb"content-length: (\d+)", head)[1])


def drain(connection):
    got = b""
    with suppress(ConnectionResetError):
        while part := connection.recv(1 << 20):
            got += part
    return got


def test_a_client_that_does_not_read_is_dropped(wide):
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(20)
        slow.connect((wide.base_url.host, wide.base_url.port))
        slow.sendall(large())
        time.sleep(10)
        got = drain(slow)
        assert got.startswith(b"HTTP/1.1 200")
        assert len(got) < length(got)


def test_nor_one_that_asks_for_small_answers_and_reads_none(wide):
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(20)
        slow.connect((wide.base_url.host, wide.base_url.port))
        asked = 0
        slow.setblocking(False)
        ends = time.monotonic() + 30
        requests = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100
        with pytest.raises(OSError, match=r"reset|[Bb]roken"):  # noqa: PT012  # first it waits, then it is dropped
            while time.monotonic() < ends:
                with suppress(BlockingIOError):
                    asked += slow.send(requests)
                time.sleep(0.01)
        assert asked < 1 << 24


def test_a_client_that_reads_slowly_gets_all_of_it(wide):
    with connect(wide) as slow:
        slow.sendall(large())
        got = slow.recv(1 << 16)
        for _ in range(50):  # longer than a client has who reads nothing
            time.sleep(0.1)
            got += slow.recv(1 << 16)
        missing = length(got) + got.index(b"\r\n\r\n") + 4 - len(got)
        while missing > 0:
            missing -= len(slow.recv(1 << 20))
        assert missing == 0


def test_large_answers_that_do_not_fit_beside_others_are_refused(bundle, start):
    with (
        start(ServerState(Settings(bundle, limits=Limits(seconds=20, ids=40_000, held=20_000_000)))) as client,
        ExitStack() as readers,
    ):
        slow = [readers.enter_context(connect(client)) for _ in range(6)]
        for one in slow:
            one.sendall(large())
        heads = [one.recv(1 << 12)[9:12] for one in slow]
        assert set(heads) == {b"200", b"503"}
        assert client.post("/recommend", json={"user": 10}).status_code == 200  # small ones always fit
        readers.close()
        ends = time.monotonic() + 20
        while statuses(exchange(client, large(), b"]}", 1))[0] == 503:
            assert time.monotonic() < ends


def test_an_answer_that_never_fits_says_so(bundle, start):
    with start(ServerState(Settings(bundle, limits=Limits(ids=40_000, held=100_000)))) as client:
        answer = exchange(client, large(), b"}")
        assert statuses(answer) == [422] and b"ask for less" in answer
