"""Connections byte by byte: requests in sequence, upgrades, heads, slow clients, and the limit of connections."""

import json
import re
import socket
import time
from contextlib import ExitStack, suppress

import pytest

from cflightning_serve.http.serving.state import ServerState
from cflightning_serve.http.settings import Limits, Settings

HEALTH = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"


def make_request(user, *headers, path="/recommend"):
    """Return the bytes of a request for one recommendation."""
    body = json.dumps({"user": user, "k": 1}).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers]
    return "\r\n".join(lines).encode() + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def connect(client, timeout=20):
    return socket.create_connection((client.base_url.host, client.base_url.port), timeout=timeout)


def exchange(client, data, until, count=1):
    """Send bytes and read until a text has arrived a number of times, or the server closes the connection."""
    response = b""
    with connect(client) as connection:
        connection.sendall(data)
        while response.count(until) < count and (part := connection.recv(1 << 16)):
            response += part
    return response


def statuses(response):
    return [int(part[:3]) for part in response.split(b"HTTP/1.1 ")[1:]]


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
def test_upgrades_are_ignored_and_the_body_is_read(client, headers, pieces):
    data = make_request(10, *headers) + HEALTH
    with connect(client) as connection:
        for part in [data] if pieces == "whole" else [data[at : at + 1] for at in range(len(data))]:
            connection.sendall(part)
        response = b""
        while b'{"live":true}' not in response:
            response += connection.recv(1 << 16)
    assert statuses(response) == [200, 200]
    assert response.count(b"known_user") == 1


def test_no_request_hides_in_the_body_of_an_upgrade(client):
    """A proxy that ignores the upgrade sees one request; so must the server, or requests could be smuggled."""
    hidden = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = b"POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    upgrade = b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: %d\r\n\r\n" % len(hidden)
    with connect(client) as connection:
        connection.sendall(head + upgrade)
        time.sleep(0.1)
        connection.sendall(hidden)
        connection.sendall(HEALTH)
        response = b""
        while b'{"live":true}' not in response:
            response += connection.recv(1 << 16)
    assert statuses(response) == [400, 200]  # the body is no JSON
    assert b"cflightning_requests" not in response


def test_a_tunnel_is_refused(client):
    response = exchange(client, b"CONNECT localhost:1 HTTP/1.1\r\nHost: localhost\r\n\r\n" + HEALTH, b"\x00")
    assert statuses(response) == [400]


def test_a_folded_header_does_not_become_two(client):
    data = make_request(10, "Connection: Upgrade", "Upgrade: h2c", "A: b\r\n X-API-Key: c")
    assert statuses(exchange(client, data, b"}")) in ([200], [400])


def test_thousands_of_pipelined_requests_are_answered_in_order(client):
    count = 2000
    data = b"".join(make_request(10, path="/recommend" if at % 2 else "/nothing") for at in range(count))
    response = b""
    with connect(client, 60) as connection:
        connection.setblocking(False)
        sent, ends = 0, time.monotonic() + 60
        while response.count(b"HTTP/1.1 ") < count or not response.endswith(b"}"):
            assert time.monotonic() < ends
            with suppress(BlockingIOError):
                sent += connection.send(data[sent : sent + (1 << 16)])
            with suppress(BlockingIOError):
                part = connection.recv(1 << 16)
                assert part, statuses(response)[-3:]
                response += part
    assert statuses(response) == [404, 200] * (count // 2)


def test_the_error_for_invalid_http_comes_after_earlier_responses(client):
    response = exchange(client, make_request(10) + HEALTH + b"nonsense\r\n\r\n" + HEALTH, b"\x00")
    assert statuses(response) == [200, 200, 400]


def test_the_error_for_an_invalid_body_comes_after_earlier_responses(client):
    broken = b"POST /recommend HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    assert statuses(exchange(client, make_request(10) + broken, b"\x00")) == [200, 400]
    assert statuses(exchange(client, broken, b"\x00")) in ([400], [415])


def test_a_client_that_expects_100_continue_gets_it_before_its_body(client):
    head, _, body = make_request(10, "Expect: 100-continue").partition(b"\r\n\r\n")
    with connect(client) as connection:
        connection.sendall(head + b"\r\n\r\n")
        assert connection.recv(1 << 16) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("line", "headers", "closes"),
    [("HTTP/1.1", b"", False), ("HTTP/1.1", b"Connection: close\r\n", True), ("HTTP/1.0", b"", True)],
)
def test_the_connection_is_closed_as_the_request_says(client, line, headers, closes):
    with connect(client, 1) as connection:
        connection.sendall(b"GET /v2 %s\r\nHost: localhost\r\n%s\r\n" % (line.encode(), headers))
        assert (b"connection: close" in connection.recv(1 << 16)) is closes
        if closes:
            assert connection.recv(1) == b""
        else:
            with pytest.raises(TimeoutError):
                connection.recv(1)


@pytest.fixture
def few(bundle, start):
    """Client of a server with at most eight connections."""
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
def test_idle_connections_make_room_for_new_ones(few, said):
    assert few.get("/v2/health/live").status_code == 200
    with ExitStack() as crowd:
        crowded = []
        for _ in range(40):
            crowded.append(crowd.enter_context(connect(few)))
            crowded[-1].sendall(said)
        assert statuses(exchange(few, HEALTH, b"}")) == [200]
        assert statuses(exchange(few, make_request(10), b"}")) == [200]
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


def test_an_active_client_keeps_its_connection(few):
    with connect(few) as regular, ExitStack() as crowd:
        for _ in range(30):
            crowd.enter_context(connect(few))
            regular.sendall(HEALTH)
            response = b""
            while b"live" not in response:
                response += (part := regular.recv(1 << 16))
                assert part


@pytest.fixture
def patient(bundle, start):
    """Client of a server with large responses, which waits four seconds for clients that do not read."""
    with start(ServerState(Settings(bundle, limits=Limits(seconds=4, ids=40_000)))) as client:
        yield client


def large_request():
    """Return the bytes of a request whose response exceeds the buffers of sockets."""
    users = {"name": "user", "shape": [40_000], "datatype": "INT64", "data": [10] * 40_000}
    rest = [
        {"name": "k", "shape": [1], "datatype": "INT64", "data": [1000]},
        {"name": "exclude_user", "shape": [0], "datatype": "INT64", "data": []},
        {"name": "exclude_item", "shape": [0], "datatype": "INT64", "data": []},
    ]
    body = json.dumps({"inputs": [users, *rest], "outputs": [{"name": "score"}]}).encode()
    head = b"POST /v2/models/cflightning/infer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def content_length(head):
    return int(re.search(rb"content-length: (\d+)", head)[1])


def drain(connection):
    got = b""
    with suppress(ConnectionResetError):
        while part := connection.recv(1 << 20):
            got += part
    return got


def test_a_client_that_does_not_read_is_dropped(patient):
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(20)
        slow.connect((patient.base_url.host, patient.base_url.port))
        slow.sendall(large_request())
        time.sleep(10)
        got = drain(slow)
        assert got.startswith(b"HTTP/1.1 200")
        assert len(got) < content_length(got)


def test_a_client_that_sends_small_requests_and_does_not_read_is_dropped(patient):
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(20)
        slow.connect((patient.base_url.host, patient.base_url.port))
        sent_bytes = 0
        slow.setblocking(False)
        ends = time.monotonic() + 30
        requests = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100
        with pytest.raises(OSError, match=r"reset|[Bb]roken"):  # noqa: PT012  # the server stops reading, then drops the client
            while time.monotonic() < ends:
                with suppress(BlockingIOError):
                    sent_bytes += slow.send(requests)
                time.sleep(0.01)
        assert sent_bytes < 1 << 24


def test_a_client_that_reads_slowly_gets_the_whole_response(patient):
    with connect(patient) as slow:
        slow.sendall(large_request())
        got = slow.recv(1 << 16)
        for _ in range(50):  # longer than the server waits for a client that does not read
            time.sleep(0.1)
            got += slow.recv(1 << 16)
        missing = content_length(got) + got.index(b"\r\n\r\n") + 4 - len(got)
        while missing > 0:
            missing -= len(slow.recv(1 << 20))
        assert missing == 0


def test_large_responses_beyond_the_memory_budget_are_refused(bundle, start):
    with (
        start(ServerState(Settings(bundle, limits=Limits(seconds=20, ids=40_000, held=20_000_000)))) as client,
        ExitStack() as readers,
    ):
        slow = [readers.enter_context(connect(client)) for _ in range(6)]
        for one in slow:
            one.sendall(large_request())
        heads = [one.recv(1 << 12)[9:12] for one in slow]
        assert set(heads) == {b"200", b"503"}
        assert client.post("/recommend", json={"user": 10}).status_code == 200  # small responses are not counted
        readers.close()
        ends = time.monotonic() + 20
        while statuses(exchange(client, large_request(), b"]}", 1))[0] == 503:
            assert time.monotonic() < ends


def test_a_response_above_the_whole_budget_says_so(bundle, start):
    with start(ServerState(Settings(bundle, limits=Limits(ids=40_000, held=100_000)))) as client:
        response = exchange(client, large_request(), b"}")
        assert statuses(response) == [422] and b"ask for less" in response
