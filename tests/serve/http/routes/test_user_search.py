"""``POST /similar-users`` and ``POST /audience`` against the scorer."""

from types import SimpleNamespace

import pytest

from cflightning_serve import Scorer
from cflightning_serve.http.routes.user_search import Audience, SimilarUsers, cost
from cflightning_serve.http.serving.executor import INLINE_LIMIT
from cflightning_serve.http.serving.state import ServerState
from cflightning_serve.http.settings import Limits, Settings


@pytest.fixture(scope="module", params=["tables", "string_tables"])
def searched(request, bundles, start, tmp_path_factory):
    """Client, scorer and tables of a bundle with the graphs of users."""
    tables = bundles.make_rich(request.getfixturevalue(request.param))
    folder = bundles.write_bundle(tmp_path_factory.mktemp("bundles") / "rich", tables)
    with start(ServerState(Settings(folder, limits=Limits(k=20)))) as client:
        yield client, Scorer.load(folder), tables


def test_similar_users(searched, post):
    client, scorer, tables = searched
    user = tables.user_ids.tolist()[2]
    rows = post(client, "/similar-users", user=user, k=3)["users"]
    top = scorer.similar_users(user, 3)
    assert [row["user"] for row in rows] == top.users.tolist()
    assert [row["similarity"] for row in rows] == pytest.approx(top.scores.tolist(), rel=1e-6)


def test_the_audience_excludes_who_has_seen_the_item_by_default(searched, post):
    client, scorer, tables = searched
    item = next(item for item in tables.item_ids.tolist() if any(item in tables.seen(u)[0] for u in tables.user_ids))
    for fields in ({}, {"exclude_seen": True}, {"exclude_seen": False}):
        rows = post(client, "/audience", item=item, **fields)["users"]
        top = scorer.audience(item, **fields)
        assert [row["user"] for row in rows] == top.users.tolist()
        assert [row["score"] for row in rows] == pytest.approx(top.scores.tolist(), rel=1e-6)
    assert len(post(client, "/audience", item=item)["users"]) < len(tables.user_ids) == len(rows)


def test_unknown_ids_are_not_found(searched, post, unknown_id):
    client, _, tables = searched
    for path, name in (("/similar-users", "user"), ("/audience", "item")):
        code, message = post(client, path, 404, **{name: unknown_id(tables)})
        assert code == "unknown_id" and repr(unknown_id(tables)) in message


@pytest.mark.parametrize(("path", "name"), [("/similar-users", "user"), ("/audience", "item")])
@pytest.mark.parametrize(("k", "reason"), [(0, "k: "), (21, "k: must not exceed 20"), ("5", "k: ")])
def test_lengths_outside_the_limits_are_refused(searched, post, path, name, k, reason):
    client, _, tables = searched
    ids = tables.user_ids if name == "user" else tables.item_ids
    assert reason in post(client, path, 422, **{name: ids.tolist()[0], "k": k})[1]


def test_a_bundle_without_the_graphs_is_unsupported(served, post):
    client, tables = served
    assert post(client, "/similar-users", 422, user=tables.user_ids.tolist()[0])[0] == "unsupported"
    assert post(client, "/audience", 422, item=tables.item_ids.tolist()[0])[0] == "unsupported"


def test_the_graphs_are_no_models_of_v2(searched):
    client, _, _ = searched
    for graph in ("similar_users", "audience"):
        assert client.get(f"/v2/models/cflightning-{graph}").status_code == 404


def test_the_description_has_the_id_types_of_the_bundle(searched):
    client, scorer, _ = searched
    document = client.get("/openapi.json").json()
    assert {"/similar-users", "/audience"} < document["paths"].keys()
    assert document["components"]["schemas"]["UserId"]["type"] == {"int64": "integer", "string": "string"}[
        scorer.manifest.user_ids
    ]  # fmt: skip


@pytest.mark.parametrize(("num_users", "in_thread"), [(6_000, False), (1_000_000, True)])
def test_long_requests_run_in_a_thread(num_users, in_thread):
    for body in (SimilarUsers(user=1), Audience(item=1)):
        assert (cost(body, SimpleNamespace(num_users=num_users)) > INLINE_LIMIT) is in_thread
