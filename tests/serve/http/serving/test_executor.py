"""Dear questions: never in the event loop, never more than threads, never computed once nobody waits."""

import asyncio
import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from cflightning_serve import Scorer
from cflightning_serve.http.middleware.concurrency import LoopShare
from cflightning_serve.http.serving.executor import ALWAYS_THREAD, Executor
from cflightning_serve.http.serving.state import ServerState
from cflightning_serve.http.settings import Limits, Settings


@pytest.fixture
def held(bundle, start, complete_scorer):
    """A server whose diverse lists take until they are let go; and the threads that asked for them."""
    scorer, go, threads = complete_scorer(Scorer.load(bundle)), threading.Event(), []
    quick = scorer.recommend

    def slow(user, k=10, exclude=None, **filters):
        if filters.get("diversity"):
            threads.append(threading.current_thread().name)
            go.wait(30)
        return quick(user, k, exclude)

    scorer.recommend = slow
    state = ServerState(Settings(bundle, limits=Limits(seconds=2)), scorer, executor=Executor(inline_limit=1_000))
    with start(state) as client:
        client.threads, client.go = threads, go
        yield client
        go.set()


def test_health_and_cheap_questions_are_answered_beside_dear_ones(held):
    dear = {"user": 10, "k": 10, "diversity": 0.5}
    with ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(held.post, "/recommend", json=dear) for _ in range(12)]
        while not held.threads:
            time.sleep(0.01)
        for _ in range(5):
            assert held.get("/v2/health/live").status_code == 200
            assert held.post("/recommend", json={"user": 10}).status_code == 200
        assert {one.result().status_code for one in asked} == {503}  # in time, though nothing was let go
    begun = len(held.threads)
    assert begun < 12 and all(name.startswith("executor-") for name in held.threads)
    held.go.set()
    assert held.post("/recommend", json=dear).status_code == 200
    assert len(held.threads) == begun + 1  # nobody waits for the others: they are not computed


def test_threads_are_held_to_the_end_and_no_more_are_begun():
    work, go, begun = Executor(), threading.Event(), []

    def slow():
        begun.append(threading.current_thread().name)
        go.wait(30)

    async def main():
        for _ in range(20):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(work.run(ALWAYS_THREAD, slow), 0.01)
        waiting = asyncio.create_task(work.run(ALWAYS_THREAD, lambda: "answered"))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        go.set()
        assert await waiting == "answered"
        with pytest.raises(ZeroDivisionError):
            await work.run(ALWAYS_THREAD, lambda: 1 / 0)
        assert await work.run(ALWAYS_THREAD, lambda: "again") == "again"

    asyncio.run(main())
    work.stop()
    assert 1 <= len(begun) < 20


def test_a_round_of_the_event_loop_ends_however_many_are_ready():
    order = []

    async def request(turns, n):
        await turns.wait()
        time.sleep(0.005)
        order.append(n)

    async def main():
        turns, loop = LoopShare(), asyncio.get_running_loop()
        ready = [asyncio.create_task(request(turns, n)) for n in range(100)]
        await asyncio.sleep(0)  # they are all ready now
        loop.call_soon(order.append, "health")
        await asyncio.gather(*ready)

    asyncio.run(main())
    assert order.index("health") <= 20
    assert [n for n in order if n != "health"] == list(range(100))  # in the order in which they came


def test_a_question_that_failed_is_let_go_at_once():
    class Question:
        def __call__(self):
            raise ValueError

    async def main():
        question = Question()
        gone = weakref.ref(question)
        with pytest.raises(ValueError):
            await Executor().run(ALWAYS_THREAD, question)
        del question
        await asyncio.sleep(0.05)
        return gone() is None

    gc.disable()
    try:
        assert asyncio.run(main())
    finally:
        gc.enable()
