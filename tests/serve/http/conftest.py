"""Servers on loopback, in threads of the test's own process."""

import shutil
import socket
import threading
import time
from contextlib import contextmanager
from typing import NamedTuple

import httpx
import numpy as np
import onnx
import pytest
import uvicorn
from onnx import TensorProto, helper, numpy_helper

from cflightning_serve import Scorer, TopK
from cflightning_serve.errors import UnknownIdError
from cflightning_serve.http.app import create_app
from cflightning_serve.http.middleware.connection import connections
from cflightning_serve.http.serving.bundle import State
from cflightning_serve.http.settings import Settings


class Answer(NamedTuple):
    """What a fold-in returns, as far as the server looks at it."""

    items: np.ndarray
    scores: np.ndarray
    known: np.ndarray


class Reasons(NamedTuple):
    """What an explanation returns, as far as the server looks at it."""

    items: np.ndarray
    contributions: np.ndarray
    base: float
    rest: float
    score: float
    nearest: TopK


class Everything:
    """A bundle's scorer with every method that the server may ask, whatever the bundle holds.

    A folded-in user gets what a stranger gets, and everything is explained by equal contributions.
    """

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self.asked = []

    def __getattr__(self, name):
        return getattr(self._scorer, name)

    def recommend(self, user, k=10, exclude=None, **filters):
        self.asked.append(filters)
        return self._scorer.recommend(user, k, exclude)

    def fold_in(self, items, ratings=None, k=10, *, exclude=None, score=None):
        known = self._scorer.knows_item(items)
        stranger = self._stranger()
        best = self._scorer.recommend(stranger, k, exclude=[*items, *(exclude or ())])
        return Answer(best.items, best.scores, known)

    def explain(self, user, item, *, items=None, ratings=None):
        if user is not None:
            items, _ = self.history(user)
        nearest = self._scorer.similar_items(item, 3)
        return Reasons(np.array(items), np.full(len(items), 0.25, np.float32), 0.5, -0.5, 3.5, nearest)

    def history(self, user):
        if not self._scorer.knows_user(user):
            raise UnknownIdError(f"history: user {user!r} was not seen in training")
        best = self._scorer.recommend(user, 2)
        return best.items, np.array([4.0, 2.5], np.float32)[: len(best.items)]

    def _stranger(self):
        return 2**62 if self._scorer.manifest.user_ids == "int64" else "\x00nobody"


@contextmanager
def serving(state, watcher=None):
    """A client of a server that runs until the end of the block."""
    http = connections(state.settings.limits)
    server = uvicorn.Server(uvicorn.Config(create_app(state, watcher), log_config=None, http=http, ws="none"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started and thread.is_alive():
                time.sleep(0.01)
            with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=20) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="session")
def start():
    """Starts a server: a state, and a watcher if there is one."""
    return serving


@pytest.fixture(scope="session")
def everything():
    return Everything


@pytest.fixture(scope="session")
def client(bundle):
    """Of a bundle with integer ids and titles."""
    with serving(State(Settings(bundle))) as client:
        yield client


@pytest.fixture(scope="session")
def string_client(string_bundle):
    with serving(State(Settings(string_bundle))) as client:
        yield client


@pytest.fixture(scope="session")
def full_client(bundle):
    """Of a bundle that can answer everything."""
    scorer = Everything(Scorer.load(bundle))
    with serving(State(Settings(bundle), scorer)) as client:
        client.scorer = scorer
        yield client


@pytest.fixture(scope="session")
def another(bundles, tmp_path_factory):
    """Other factors for the same ids."""
    tables = bundles.make_tables(titles=True, seed=5)
    return tables, bundles.write_bundle(tmp_path_factory.mktemp("bundles") / "another", tables)


@pytest.fixture(scope="session")
def endless(bundles, another, tmp_path_factory):
    """A bundle whose recommend.onnx counts to 2**62 first."""
    folder = tmp_path_factory.mktemp("bundles") / "endless"
    shutil.copytree(another[1], folder)
    path = folder / "recommend.onnx"
    model = onnx.load(path, load_external_data=False)
    one = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["goes"]), helper.make_node("Identity", ["kept"], ["keeps"])],
        "body",
        [one("n", TensorProto.INT64, []), one("go", TensorProto.BOOL, []), one("kept", TensorProto.INT64, [1])],
        [one("goes", TensorProto.BOOL, []), one("keeps", TensorProto.INT64, [1])],
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(2**62), "times"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "always"))
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name == "k":
                node.input[place] = "k_in_the_end"
    model.graph.node.insert(0, helper.make_node("Loop", ["times", "always", "k"], ["k_in_the_end"], body=body))
    path.write_bytes(model.SerializeToString())
    bundles.reseal(folder)
    return folder
