"""Servers on loopback, in threads of the test process."""

import shutil
import socket
import threading
import time
from contextlib import contextmanager, suppress
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
from cflightning_serve.http.connection.connection import connection_factory
from cflightning_serve.http.serving.state import ServerState
from cflightning_serve.http.settings import Settings


class FoldInResult(NamedTuple):
    """The fields of a fold-in's result that the server reads."""

    items: np.ndarray
    scores: np.ndarray
    known: np.ndarray


class ExplanationResult(NamedTuple):
    """The fields of an explanation that the server reads."""

    items: np.ndarray
    contributions: np.ndarray
    base: float
    rest: float
    score: float
    nearest: TopK


class CompleteScorer:
    """A scorer with stubs of the methods for which its bundle has no graph; it records the filters of requests.

    A new user gets the recommendations of an unknown one, and all contributions of an explanation are equal.
    """

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self.filters = []

    def __getattr__(self, name):
        return getattr(self._scorer, name)

    def recommend(self, user, k=10, exclude=None, **filters):
        self.filters.append(filters)
        return self._scorer.recommend(user, k, exclude)

    def fold_in(self, items, ratings=None, k=10, *, exclude=None, score=None):
        unknown_user = 2**62 if self._scorer.manifest.user_ids == "int64" else "\x00nobody"
        best = self._scorer.recommend(unknown_user, k, exclude=[*items, *(exclude or ())])
        return FoldInResult(best.items, best.scores, self._scorer.knows_item(items))

    def explain(self, user, item, *, items=None, ratings=None):
        if user is not None:
            items, _ = self.history(user)
        nearest = self._scorer.similar_items(item, 3)
        contributions = np.full(len(items), 0.25, np.float32)
        return ExplanationResult(np.array(items), contributions, 0.5, -0.5, 3.5, nearest)

    def history(self, user):
        if not self._scorer.knows_user(user):
            raise UnknownIdError(f"history: user {user!r} was not seen in training")
        best = self._scorer.recommend(user, 2)
        return best.items, np.array([4.0, 2.5], np.float32)[: len(best.items)]


@contextmanager
def serving(state, watcher=None, more_routes=()):
    """Serve in a thread of this process until the end of the block, and yield a client."""
    http = connection_factory(state.settings.limits)
    app = create_app(state, watcher, more_routes)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, http=http, ws="none"))
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
def connect():
    """Opens a connection to a server: connect(client, timeout=20) -> socket."""
    return lambda client, timeout=20: socket.create_connection(
        (client.base_url.host, client.base_url.port), timeout=timeout
    )


@pytest.fixture(scope="session")
def exchange(connect):
    """Sends bytes on a new connection: exchange(client, data, timeout=0.5) -> all that the server sends until then."""

    def send(client, data, timeout=0.5):
        response = b""
        with connect(client, timeout) as connection, suppress(TimeoutError):
            connection.sendall(data)
            while part := connection.recv(1 << 16):
                response += part
        return response

    return send


@pytest.fixture(scope="session")
def start():
    """Starts a server: start(state, watcher=None, more_routes=()) -> context manager that gives a client."""
    return serving


@pytest.fixture(scope="session")
def complete_scorer():
    """Adds stubs for missing graphs: complete_scorer(scorer) -> scorer."""
    return CompleteScorer


@pytest.fixture(scope="session")
def client(bundle):
    """Client of a server of a bundle with integer ids and titles."""
    with serving(ServerState(Settings(bundle))) as client:
        yield client


@pytest.fixture(scope="session")
def string_client(string_bundle):
    """Client of a server of a bundle with string ids."""
    with serving(ServerState(Settings(string_bundle))) as client:
        yield client


@pytest.fixture(scope="session")
def full_client(bundle):
    """Client of a server whose scorer has all methods."""
    scorer = CompleteScorer(Scorer.load(bundle))
    with serving(ServerState(Settings(bundle), scorer)) as client:
        client.scorer = scorer
        yield client


@pytest.fixture(scope="session")
def another(bundles, tmp_path_factory):
    """Tables and bundle with the same ids and other factors."""
    tables = bundles.make_tables(titles=True, seed=5)
    return tables, bundles.write_bundle(tmp_path_factory.mktemp("bundles") / "another", tables)


@pytest.fixture(scope="session")
def endless(bundles, another, tmp_path_factory):
    """A bundle whose recommend.onnx counts to 2**62 first, which never ends."""
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
