"""Connections byte by byte: heads, requests in sequence, upgrades, slow clients, and the limit of connections."""

import json
import time
from contextlib import ExitStack, suppress

import pytest

from cflightning_serve.http.connection.connection import MAX_HEAD
from cflightning_serve.http.serving.state import ServerState
from cflightning_serve.http.settings import Limits, Settings

HEALTH = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def make_request(user, *headers, path="/recommend"):
    """Return the bytes of a request for one recommendation."""
    body = json.dumps({"user": user, "k": 1}).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers]
    return "\r\n".join(lines).encode() + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def statuses(data):
    return [int(part[:3]) for part in data.split(b"HTTP/1.1 ")[1:]]


def read_until(connection, text, count=1):
    """Read until a text has arrived a number of times, or the server closes the connection."""
    data = b""
    while data.count(text) < count and (part := connection.recv(1 << 16)):
        data += part
    return data


# Heads ----------------------------------------------------------------------------------------------------------------


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
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_invalid_requests_get_an_error_in_json(client, exchange, data):
    response = exchange(client, data)
    assert response.startswith(b"HTTP/1.1 4"), response
    assert b"application/json" in response
    assert json.loads(response.partition(b"\r\n\r\n")[2])["error"]
    assert client.get("/v2/health/live").status_code == 200


@pytest.mark.parametrize("piece", [b"a" * 10_000, b"a: b\r\n" * 2_000], ids=["long", "many"])
def test_endless_headers_are_cut_off(client, connect, piece):
    with connect(client) as connection:
        connection.sendall(b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nA: b\r\nC: ")
        sent = 0
        with suppress(OSError):  # the server closes the connection
            while sent < 100 * MAX_HEAD:
                sent += connection.send(piece)
        assert sent < 100 * MAX_HEAD


def test_the_size_of_headers_is_limited(client, exchange):
    head = b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nA: "
    assert exchange(client, head + b"a" * (MAX_HEAD - 1_000) + b"\r\n\r\n").startswith(b"HTTP/1.1 200")
    response = exchange(client, head + b"a" * MAX_HEAD)
    assert response.startswith(b"HTTP/1.1 431")
    assert json.loads(response.partition(b"\r\n\r\n")[2])["error"]["code"] == "headers"


def test_a_body_does_not_count_as_headers(client, connect):
    body = b'{"user": 10, "k": 1}' + b" " * 4 * MAX_HEAD
    request = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with connect(client) as connection:
        for _ in range(3):  # the end of a request arrives with the beginning of the next
            connection.sendall(request[: len(request) // 2])
            connection.sendall(request[len(request) // 2 :] + request[:40])
            connection.sendall(request[40:])
            assert read_until(connection, b"known_user", 2).count(b"HTTP/1.1 200") == 2


@pytest.mark.parametrize(
    ("data", "response"), [(b"", b""), (b"GET /v2 HTTP/1.1\r\nHos", b"HTTP/1.1 408")], ids=["nothing", "a part"]
)
def test_headers_have_a_deadline(bundle, start, connect, data, response):
    with start(ServerState(Settings(bundle, limits=Limits(seconds=0.3)))) as client, connect(client) as connection:
        connection.sendall(data)
        got = connection.recv(1 << 16)
        assert got.startswith(response) and bool(got) == bool(response)
        with suppress(ConnectionResetError):
            assert connection.recv(1 << 16) == b""


@pytest.mark.slow
def test_every_request_has_its_own_deadline(bundle, start, connect):
    with start(ServerState(Settings(bundle, limits=Limits(seconds=0.3)))) as client, connect(client) as connection:
        for part in (HEALTH[:9], HEALTH[9:] + HEALTH[:9], HEALTH[9:], HEALTH):
            connection.sendall(part)
            time.sleep(0.2)
        assert statuses(read_until(connection, b"true", 3)) == [200] * 3


@pytest.mark.parametrize(
    ("begin", "piece"),
    [(b"0\r\nA: ", b"a" * 10_000), (b"0\r\n", b"a: b\r\n" * 2_000), (b"1;a", b"a" * 10_000)],
    ids=["long trailer", "many trailers", "extension of a chunk"],
)
def test_endless_data_around_a_body_in_chunks_is_cut_off(bundle, start, connect, begin, piece):
    with (
        start(ServerState(Settings(bundle, limits=Limits(body=1000)))) as client,
        connect(client) as connection,
    ):
        connection.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n" + begin)
        sent = 0
        with suppress(OSError):  # the server closes the connection
            while sent < 500 * MAX_HEAD:
                sent += connection.send(piece)
        assert sent < 500 * MAX_HEAD


# Requests in sequence -------------------------------------------------------------------------------------------------


def test_a_client_that_expects_100_continue_gets_it_before_its_body(client, connect):
    head, _, body = make_request(10, "Expect: 100-continue").partition(b"\r\n\r\n")
    with connect(client) as connection:
        connection.sendall(head + b"\r\n\r\n")
        assert connection.recv(1 << 16) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("version", "header", "closes"),
    [(b"1.1", b"", False), (b"1.1", b"Connection: close\r\n", True), (b"1.0", b"", True)],
)
def test_the_connection_is_closed_as_the_request_says(client, connect, version, header, closes):
    with connect(client, 1) as connection:
        connection.sendall(b"GET /v2 HTTP/%s\r\nHost: localhost\r\n%s\r\n" % (version, header))
        assert (b"connection: close" in connection.recv(1 << 16)) is closes
        if closes:
            assert connection.recv(1) == b""
        else:
            with pytest.raises(TimeoutError):
                connection.recv(1)


def test_an_unread_large_body_does_not_block_the_connection(client, connect):
    body = b" " * 8 * MAX_HEAD
    head = b"POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n"
    with connect(client, 4) as connection:
        for _ in range(3):
            connection.sendall(head % len(body))
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 415")
            connection.sendall(body + HEALTH)
            assert b"HTTP/1.1 200" in read_until(connection, b"live")
            connection.sendall(head % len(body) + body + HEALTH)
            assert statuses(read_until(connection, b"live")) == [415, 200]


def test_thousands_of_pipelined_requests_are_answered_in_order(client, connect):
    count = 2000
    data = b"".join(make_request(10, path="/recommend" if n % 2 else "/nothing") for n in range(count))
    responses = b""
    with connect(client) as connection:
        connection.setblocking(False)
        sent, deadline = 0, time.monotonic() + 60
        while responses.count(b"HTTP/1.1 ") < count or not responses.endswith(b"}"):
            assert time.monotonic() < deadline
            with suppress(BlockingIOError):
                sent += connection.send(data[sent : sent + (1 << 16)])
            with suppress(BlockingIOError):
                part = connection.recv(1 << 16)
                assert part, statuses(responses)[-3:]
                responses += part
    assert statuses(responses) == [404, 200] * (count // 2)


def test_the_error_for_invalid_http_comes_after_earlier_responses(client, exchange):
    responses = exchange(client, make_request(10) + HEALTH + b"nonsense\r\n\r\n" + HEALTH, 5)
    assert statuses(responses) == [200, 200, 400]


def test_the_error_for_an_invalid_body_comes_after_earlier_responses(client, exchange):
    broken = b"POST /recommend HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    assert statuses(exchange(client, make_request(10) + broken, 5)) == [200, 400]
    assert statuses(exchange(client, broken, 5)) in ([400], [415])


# Upgrades -------------------------------------------------------------------------------------------------------------


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
def test_upgrades_are_ignored_and_the_body_is_read(client, connect, headers, pieces):
    data = make_request(10, *headers) + HEALTH
    with connect(client) as connection:
        for part in [data] if pieces == "whole" else [data[n : n + 1] for n in range(len(data))]:
            connection.sendall(part)
        responses = read_until(connection, b'{"live":true}')
    assert statuses(responses) == [200, 200]
    assert responses.count(b"known_user") == 1


def test_no_request_hides_in_the_body_of_an_upgrade(client, connect):
    """A proxy that ignores the upgrade sees one request; so must the server, or requests could be smuggled."""
    hidden = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with connect(client) as connection:
        connection.sendall(POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: %d\r\n\r\n" % len(hidden))
        time.sleep(0.1)
        connection.sendall(hidden)
        connection.sendall(HEALTH)
        responses = read_until(connection, b'{"live":true}')
    assert statuses(responses) == [400, 200]  # the body is not JSON
    assert b"cflightning_requests" not in responses


def test_a_tunnel_is_refused(client, exchange):
    data = b"CONNECT localhost:1 HTTP/1.1\r\nHost: localhost\r\n\r\n" + HEALTH
    assert statuses(exchange(client, data)) == [400]


def test_a_folded_header_does_not_become_two(client, exchange):
    data = make_request(10, "Connection: Upgrade", "Upgrade: h2c", "A: b\r\n X-API-Key: c")
    assert statuses(exchange(client, data)) in ([200], [400])


# The limit of connections ---------------------------------------------------------------------------------------------


@pytest.fixture
def few(bundle, start):
    """Client of a server with at most eight connections."""
    with start(ServerState(Settings(bundle, limits=Limits(connections=8, seconds=30)))) as client:
        yield client


def is_closed(connection):
    connection.settimeout(0.01)
    try:
        while connection.recv(1 << 16):
            pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize(
    "data",
    [b"", b"GET /v2 HTTP/1.1\r\nHos", POST + b"Content-Length: 9\r\n\r\n{", HEALTH],
    ids=["nothing", "part of the headers", "part of the body", "one request"],
)
def test_idle_connections_make_room_for_new_ones(few, connect, data):
    assert few.get("/v2/health/live").status_code == 200
    with ExitStack() as crowd:
        connections = []
        for _ in range(40):
            connections.append(crowd.enter_context(connect(few)))
            connections[-1].sendall(data)
        for request in (HEALTH, make_request(10)):
            with connect(few) as connection:
                connection.sendall(request)
                assert statuses(read_until(connection, b"}")) == [200]
        assert 32 <= sum(map(is_closed, connections)) < 40


def test_an_active_client_keeps_its_connection(few, connect):
    with connect(few) as active, ExitStack() as crowd:
        for _ in range(30):
            crowd.enter_context(connect(few))
            active.sendall(HEALTH)
            assert b"live" in read_until(active, b"live")


@pytest.mark.slow
def test_a_client_that_sends_small_requests_and_does_not_read_is_dropped(bundle, start, connect):
    with start(ServerState(Settings(bundle, limits=Limits(seconds=1)))) as client, connect(client) as slow:
        sent = 0
        slow.setblocking(False)
        deadline = time.monotonic() + 30
        requests = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100
        # The server stops reading, then drops the client.
        with pytest.raises(OSError, match=r"reset|[Bb]roken"):  # noqa: PT012
            while time.monotonic() < deadline:
                with suppress(BlockingIOError):
                    sent += slow.send(requests)
                time.sleep(0.01)
        assert sent < 1 << 24
