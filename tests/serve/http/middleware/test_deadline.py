"""The deadline of requests."""

import threading
import time

from cflightning_serve import Scorer
from cflightning_serve.http.serving.executor import Executor
from cflightning_serve.http.serving.state import ServerState
from cflightning_serve.http.settings import Limits, Settings

POST = b"POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def test_an_incomplete_body_is_refused_at_the_deadline(bundle, start, exchange):
    with start(ServerState(Settings(bundle, limits=Limits(seconds=0.3)))) as client:
        response = exchange(client, POST + b"Content-Length: 12\r\n\r\n{", timeout=5)
    assert response.startswith(b"HTTP/1.1 503")
    assert b"not answered within 0.3 seconds" in response
    assert b"\r\nconnection: close\r\n" in response.lower()


def test_a_long_computation_is_refused_at_the_deadline(bundle, start, complete_scorer):
    scorer, done = complete_scorer(Scorer.load(bundle)), threading.Event()
    recommend = scorer.recommend

    def wait(*args, **options):
        done.wait(5)
        return recommend(*args, **options)

    scorer.recommend = wait
    state = ServerState(Settings(bundle, limits=Limits(seconds=0.2)), scorer, executor=Executor(inline_limit=0))
    with start(state) as client:
        began = time.monotonic()
        response = client.post("/recommend", json={"user": 10})
        assert (response.status_code, response.json()["error"]["code"]) == (503, "time")
        assert time.monotonic() - began < 3
        assert client.get("/v2/health/live").status_code == 200  # the event loop is free
        done.set()
        assert client.post("/recommend", json={"user": 10}).status_code == 200
        assert 'status="503"' in client.get("/metrics").text
