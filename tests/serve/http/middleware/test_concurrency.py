"""The limit of requests in progress, and fairness of the event loop."""

import asyncio
import threading
import time
from contextlib import ExitStack

from cflightning_serve import Scorer
from cflightning_serve.http.middleware.concurrency import LoopShare
from cflightning_serve.http.serving.executor import Executor
from cflightning_serve.http.serving.state import ServerState
from cflightning_serve.http.settings import Limits, Settings

POST = b"POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def test_requests_in_progress_are_limited(bundle, start, complete_scorer):
    scorer, begun, done = complete_scorer(Scorer.load(bundle)), threading.Event(), threading.Event()
    recommend = scorer.recommend

    def wait(*args, **options):
        begun.set()
        done.wait(20)
        return recommend(*args, **options)

    scorer.recommend = wait
    state = ServerState(Settings(bundle, limits=Limits(concurrent=1)), scorer, executor=Executor(inline_limit=0))
    with start(state) as client:
        responses = []
        thread = threading.Thread(target=lambda: responses.append(client.post("/recommend", json={"user": 10})))
        thread.start()
        assert begun.wait(20)
        refused = client.post("/recommend", json={"user": 10})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "busy")
        assert refused.headers["retry-after"] == "1"
        assert client.get("/v2/health/live").status_code == 200
        done.set()
        thread.join(20)
        assert responses[0].status_code == 200
        assert client.post("/recommend", json={"user": 10}).status_code == 200


def test_incomplete_bodies_do_not_count(bundle, start, connect):
    with start(ServerState(Settings(bundle, limits=Limits(concurrent=1)))) as client, ExitStack() as connections:
        for _ in range(20):
            connections.enter_context(connect(client)).sendall(POST + b"Content-Length: 12\r\n\r\n{")
        assert [client.post("/recommend", json={"user": 10}).status_code for _ in range(3)] == [200] * 3


def test_an_iteration_of_the_event_loop_ends_however_many_requests_are_ready():
    order = []

    async def request(share, n):
        await share.wait()
        time.sleep(0.005)
        order.append(n)

    async def main():
        share, loop = LoopShare(), asyncio.get_running_loop()
        requests = [asyncio.create_task(request(share, n)) for n in range(100)]
        await asyncio.sleep(0)  # all are ready
        loop.call_soon(order.append, "health")
        await asyncio.gather(*requests)

    asyncio.run(main())
    assert order.index("health") <= 20
    assert [n for n in order if n != "health"] == list(range(100))  # in order of arrival
