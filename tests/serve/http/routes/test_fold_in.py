"""``POST /fold-in``."""

from types import SimpleNamespace

import pytest

from cflightning_serve import Scorer, UnsupportedError
from cflightning_serve.http.routes.fold_in import FoldIn, cost
from cflightning_serve.http.serving.executor import INLINE_LIMIT
from cflightning_serve.http.serving.state import ServerState
from cflightning_serve.http.settings import Settings


def test_recommendations_of_a_new_user(full_client, tables, post):
    items = tables.item_ids.tolist()
    body = post(full_client, "/fold-in", ratings=[[items[0], 5], [11, 2.5]], k=3, exclude=[items[1]])
    expected = Scorer.recommend(full_client.scorer, 2**62, 3, [items[0], items[1]]).items.tolist()
    assert [row["item"] for row in body["items"]] == expected
    assert body["unknown_items"] == [11]


def test_a_bundle_without_the_graph_is_unsupported(bundle, start, complete_scorer, post):
    scorer = complete_scorer(Scorer.load(bundle))

    def fold_in(*_, **__):
        raise UnsupportedError(f"{bundle.resolve()}: has no graph 'fold_in'")

    scorer.fold_in = fold_in
    with start(ServerState(Settings(bundle), scorer)) as client:
        code, message = post(client, "/fold-in", 422, ratings=[])
    assert code == "unsupported"
    assert "has no graph" in message and str(bundle.parent) not in message


@pytest.mark.parametrize(("num_ratings", "in_thread"), [(50, False), (10_000, True)])
def test_long_requests_run_in_a_thread(num_ratings, in_thread):
    body = FoldIn(ratings=[(n, 3.0) for n in range(num_ratings)])
    assert (cost(body, SimpleNamespace(num_items=3_707)) > INLINE_LIMIT) is in_thread
