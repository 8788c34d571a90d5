"""Long computations: never in the event loop, never more than threads, and none whose caller is gone."""

import asyncio
import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from cflightning_serve import Scorer
from cflightning_serve.http.serving.executor import ALWAYS_THREAD, Executor
from cflightning_serve.http.serving.state import ServerState
from cflightning_serve.http.settings import Limits, Settings


@pytest.fixture
def blocked(bundle, start, complete_scorer):
    """Client of a server whose diverse lists block until ``client.unblock``, and count in ``client.threads``."""
    scorer, unblock, threads = complete_scorer(Scorer.load(bundle)), threading.Event(), []
    recommend = scorer.recommend

    def wait(user, k=10, exclude=None, **filters):
        if filters.get("diversity"):
            threads.append(threading.current_thread().name)
            unblock.wait(30)
        return recommend(user, k, exclude)

    scorer.recommend = wait
    state = ServerState(Settings(bundle, limits=Limits(seconds=2)), scorer, executor=Executor(inline_limit=1_000))
    with start(state) as client:
        client.threads, client.unblock = threads, unblock
        yield client
        unblock.set()


@pytest.mark.slow
def test_short_requests_are_answered_beside_long_ones(blocked):
    long = {"user": 10, "k": 10, "diversity": 0.5}
    with ThreadPoolExecutor(12) as pool:
        responses = [pool.submit(blocked.post, "/recommend", json=long) for _ in range(12)]
        while not blocked.threads:
            time.sleep(0.01)
        for _ in range(5):
            assert blocked.get("/v2/health/live").status_code == 200
            assert blocked.post("/recommend", json={"user": 10}).status_code == 200
        assert {response.result().status_code for response in responses} == {503}  # at their deadline
    begun = len(blocked.threads)
    assert begun < 12 and all(name.startswith("executor-") for name in blocked.threads)
    blocked.unblock.set()
    assert blocked.post("/recommend", json=long).status_code == 200
    assert len(blocked.threads) == begun + 1  # the others, whose clients have an error already, never run


def test_a_running_computation_occupies_its_thread_to_the_end():
    executor, unblock, begun = Executor(), threading.Event(), []

    def block():
        begun.append(threading.current_thread().name)
        unblock.wait(30)

    async def main():
        for _ in range(20):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(executor.run(ALWAYS_THREAD, block), 0.01)
        waiting = asyncio.create_task(executor.run(ALWAYS_THREAD, lambda: "result"))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        unblock.set()
        assert await waiting == "result"
        with pytest.raises(ZeroDivisionError):
            await executor.run(ALWAYS_THREAD, lambda: 1 / 0)
        assert await executor.run(ALWAYS_THREAD, lambda: "again") == "again"

    asyncio.run(main())
    executor.stop()
    assert 1 <= len(begun) < 20


def test_a_failed_computation_is_released_at_once():
    class Computation:
        def __call__(self):
            raise ValueError

    async def main():
        computation = Computation()
        reference = weakref.ref(computation)
        with pytest.raises(ValueError):
            await Executor().run(ALWAYS_THREAD, computation)
        del computation
        await asyncio.sleep(0.05)
        return reference() is None

    gc.disable()
    try:
        assert asyncio.run(main())
    finally:
        gc.enable()
