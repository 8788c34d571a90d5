"""ASGI's receive and send of one request, over a stub of its connection."""

import asyncio

import pytest

from cflightning_serve.http.connection.exchange import Exchange


class RecordingPeer:
    """A connection that records what is sent, and whether it is closed."""

    default_headers = ((b"date", b"today"),)

    def __init__(self):
        self.data, self.closed, self.completed = b"", False, 0

    async def drain(self):
        pass

    def write(self, data):
        self.data += data

    def body_read(self):
        pass

    def exchange_complete(self, exchange):
        assert exchange.response_complete
        self.completed += 1

    def close(self):
        self.closed = True


def respond(*messages, method="GET", keep_alive=True):
    """Send ASGI messages, the start with or without its type, and return the connection."""
    peer = RecordingPeer()

    async def app(scope, receive, send):
        for message in messages:
            await send(message)

    asyncio.run(Exchange({"method": method}, peer, keep_alive, False).run(app))
    return peer


def start(status=200, *headers):
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(data=b"", more_body=False):
    return {"type": "http.response.body", "body": data, "more_body": more_body}


def test_a_response_with_a_length_is_sent_in_one_write_and_keeps_the_connection():
    peer = respond(start(200, (b"Content-Length", b"2")), body(b"ab"))
    assert peer.data == b"HTTP/1.1 200 OK\r\ndate: today\r\ncontent-length: 2\r\n\r\nab"
    assert (peer.closed, peer.completed) == (False, 1)


def test_a_response_without_a_length_is_sent_in_chunks():
    peer = respond(start(), body(b"abc", more_body=True), body(b"", more_body=True), body(b"d"))
    assert peer.data.endswith(b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n")


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_responses_without_a_body(method, status):
    peer = respond(start(status), body(), method=method)
    assert peer.data.endswith(b"date: today\r\n\r\n")
    assert peer.completed == 1


@pytest.mark.parametrize(
    ("keep_alive", "headers"), [(False, ()), (True, ((b"Connection", b"close"),))], ids=["request", "response"]
)
def test_request_and_response_can_close_the_connection(keep_alive, headers):
    peer = respond(start(200, (b"content-length", b"0"), *headers), body(), keep_alive=keep_alive)
    assert peer.data.count(b"connection: close\r\n") == 1
    assert peer.closed


@pytest.mark.parametrize(
    "messages",
    [
        (),
        (body(b"a"),),
        (start(200, (b"a", b"b\r\nx: y")), body()),
        (start(200, (b"content-length", b"1")), body(b"ab")),
        (start(200, (b"content-length", b"3")), body(b"ab")),
        (start(), start(), body()),
    ],
    ids=["nothing", "no start", "two lines in a header", "too long", "too short", "two starts"],
)
def test_a_response_that_is_invalid_becomes_an_error(messages):
    peer = respond(*messages)
    assert peer.data.startswith(b"HTTP/1.1 500 ") and b"internal" in peer.data
    assert b"x: y" not in peer.data
    assert peer.closed


def test_a_response_that_breaks_off_closes_the_connection():
    peer = respond(start(200, (b"content-length", b"3")), body(b"ab", more_body=True))
    assert peer.data.endswith(b"\r\n\r\nab")
    assert (peer.closed, peer.completed) == (True, 0)


def test_a_body_is_received_in_parts_and_then_the_disconnect():
    messages = []

    async def main():
        exchange = Exchange({"method": "POST"}, peer := RecordingPeer(), True, True)
        exchange.feed(b"ab")
        messages.append(await exchange.receive())
        exchange.feed(b"c")
        exchange.feed_eof()
        messages.append(await exchange.receive())
        exchange.disconnect()
        messages.append(await exchange.receive())
        await exchange.send(start())
        await exchange.send(body())
        return peer.data

    assert asyncio.run(main()) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert messages == [
        {"type": "http.request", "body": b"ab", "more_body": True},
        {"type": "http.request", "body": b"c", "more_body": False},
        {"type": "http.disconnect"},
    ]
