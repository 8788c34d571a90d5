"""Large responses: clients that read slowly or not at all, and the memory budget."""

import json
import re
import socket
import time
from contextlib import ExitStack, suppress

import pytest

from cflightning_serve.http.serving.state import ServerState
from cflightning_serve.http.settings import Limits, Settings

USERS = 20_000
SECONDS = 2
"""Seconds that the server waits for clients that do not read."""


def large_request():
    """Return the bytes of a request whose response exceeds the buffers of sockets."""
    users = {"name": "user", "shape": [USERS], "datatype": "INT64", "data": [10] * USERS}
    others = [
        {"name": "k", "shape": [1], "datatype": "INT64", "data": [1000]},
        {"name": "exclude_user", "shape": [0], "datatype": "INT64", "data": []},
        {"name": "exclude_item", "shape": [0], "datatype": "INT64", "data": []},
    ]
    body = json.dumps({"inputs": [users, *others], "outputs": [{"name": "score"}]}).encode()
    head = b"POST /v2/models/cflightning/infer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def total_length(response):
    """Return the bytes of a response, head and body, according to its head."""
    return response.index(b"\r\n\r\n") + 4 + int(re.search(rb"content-length: (\d+)", response)[1])


@pytest.fixture(scope="module")
def patient(bundle, start):
    """Client of a server with large responses."""
    with start(ServerState(Settings(bundle, limits=Limits(seconds=SECONDS, ids=USERS)))) as client:
        yield client


@pytest.mark.slow
def test_a_client_that_does_not_read_is_dropped(patient):
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(20)
        slow.connect((patient.base_url.host, patient.base_url.port))
        slow.sendall(large_request())
        time.sleep(3 * SECONDS)
        response = b""
        with suppress(ConnectionResetError):
            while part := slow.recv(1 << 20):
                response += part
    assert response.startswith(b"HTTP/1.1 200")
    assert len(response) < total_length(response)


@pytest.mark.slow
def test_a_client_that_reads_slowly_gets_the_whole_response(patient, connect):
    with connect(patient) as slow:
        slow.sendall(large_request())
        response = slow.recv(1 << 16)
        for _ in range(15 * SECONDS):  # longer than the server waits for a client that does not read
            time.sleep(0.1)
            response += slow.recv(1 << 16)
        missing = total_length(response) - len(response)
        while missing > 0:
            missing -= len(slow.recv(1 << 20))
        assert missing == 0


def test_large_responses_beyond_the_memory_budget_are_refused(bundle, start, connect):
    limits = Limits(seconds=20, ids=USERS, memory=10_000_000)
    with start(ServerState(Settings(bundle, limits=limits))) as client, ExitStack() as readers:
        connections = [readers.enter_context(connect(client)) for _ in range(6)]
        for connection in connections:
            connection.sendall(large_request())
        assert {connection.recv(1 << 12)[9:12] for connection in connections} == {b"200", b"503"}
        assert client.post("/recommend", json={"user": 10}).status_code == 200  # small responses are not counted
        readers.close()
        deadline = time.monotonic() + 20
        status = b"503"
        while status == b"503":
            assert time.monotonic() < deadline
            with connect(client) as connection:
                connection.sendall(large_request())
                status = connection.recv(1 << 12)[9:12]


@pytest.mark.slow
def test_a_response_above_the_whole_budget_says_so(bundle, start, exchange):
    with start(ServerState(Settings(bundle, limits=Limits(ids=USERS, memory=100_000)))) as client:
        response = exchange(client, large_request(), 3)
        assert response.startswith(b"HTTP/1.1 422") and b"ask for less" in response
